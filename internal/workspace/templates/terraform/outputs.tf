output "machines" {
  description = "Every machine of the lab and its address."
  value = {
    for name, machine in local.machines : name => {
      role       = machine.role
      ip         = machine.ip
      hypervisor = machine.hypervisor
    }
  }
}

output "ssh_fingerprint" {
  description = "Fingerprint of the key pair k3lab logs in with."
  value       = k3lab_ssh_key.operator.fingerprint
}
