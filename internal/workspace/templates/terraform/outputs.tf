output "machines" {
  description = "Every machine of the lab and its address."
  value = {
    for name, machine in local.machines : name => {
      role       = machine.role
      ip         = machine.ip
      hypervisor = machine.hypervisor
    }
  }

  # Machines behind an endpoint without a module call would be destroyed.
  precondition {
    condition     = toset(local.endpoints) == toset(local.endpoints_called)
    error_message = "providers.k3lab.tf does not fit the endpoints of vars/proxmox.yaml. Run: k3lab fmt"
  }
}

output "ssh_fingerprint" {
  description = "Fingerprint of the key pair k3lab logs in with."
  value       = k3lab_ssh_key.operator.fingerprint
}
