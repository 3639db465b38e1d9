# VMs that were there before this lab was kept by k3lab. They are imported, never
# made and never destroyed; only cores, memory and on_boot follow the settings.
resource "proxmox_virtual_environment_vm" "adopted" {
  for_each = { for name, machine in var.machines : name => machine if machine.adopted }

  node_name = each.value.hypervisor
  vm_id     = each.value.vmid

  on_boot = each.value.on_boot
  # A changed size waits for the next restart.
  reboot_after_update = false
  migrate             = true

  cpu {
    cores = each.value.cores
  }
  memory {
    dedicated = each.value.memory_mib
    floating  = each.value.balloon_mib
  }

  lifecycle {
    prevent_destroy = true
    ignore_changes = [
      acpi, agent, amd_sev, audio_device, bios, boot_order, cdrom, clone, cpu[0].affinity, cpu[0].architecture,
      cpu[0].flags, cpu[0].hotplugged, cpu[0].limit, cpu[0].numa, cpu[0].sockets, cpu[0].type, cpu[0].units,
      description, disk, efi_disk, hook_script_file_id, hostpci, initialization, keyboard_layout, kvm_arguments,
      machine, memory[0].hugepages, memory[0].keep_hugepages, memory[0].shared, name, network_device, numa,
      operating_system, pool_id, protection, rng, scsi_hardware, serial_device, smbios, started, startup, tablet_device,
      tags, template, tpm_state, usb, vga, virtiofs, watchdog,
    ]
  }
}
