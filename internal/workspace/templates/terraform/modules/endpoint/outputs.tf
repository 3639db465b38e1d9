output "mac_addresses" {
  description = "MAC address of each machine, as set or as Proxmox chose it."
  value = {
    for name, machine in merge(proxmox_virtual_environment_vm.machine, proxmox_virtual_environment_vm.adopted) :
    name => machine.network_device[0].mac_address
  }
}
