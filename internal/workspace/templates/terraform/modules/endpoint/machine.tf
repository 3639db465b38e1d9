resource "proxmox_virtual_environment_vm" "machine" {
  for_each = { for name, machine in var.machines : name => machine if !machine.adopted }

  name      = each.key
  node_name = each.value.hypervisor
  vm_id     = each.value.vmid
  pool_id   = proxmox_virtual_environment_pool.lab.pool_id
  tags      = sort(distinct(["k3lab", each.value.role == "none" ? "k3lab" : each.value.role]))

  on_boot = each.value.on_boot
  started = true
  # A machine follows its setting to another hypervisor alive, disks included.
  migrate = true
  # Servers must not restart all at once; a changed size waits for the next restart.
  reboot_after_update = false
  stop_on_destroy     = true
  # A start that Proxmox never reports as done does not hold up a run for half an hour.
  timeout_start_vm = 300

  clone {
    vm_id        = coalesce(each.value.template_vmid, var.hypervisors[each.value.hypervisor].template_vmid)
    datastore_id = coalesce(each.value.storage, var.hypervisors[each.value.hypervisor].storage)
    full         = true
    retries      = 2
  }

  # Addresses are fixed, so nothing has to ask the guest agent, and no run waits
  # for one that is not there.
  agent {
    enabled = false
    timeout = "5s"
  }
  cpu {
    cores = each.value.cores
    type  = "x86-64-v2-AES"
  }
  memory {
    dedicated = each.value.memory_mib
    floating  = each.value.balloon_mib
  }
  startup {
    order = each.value.role == "server" ? 2 : each.value.role == "agent" ? 3 : 1
  }

  disk {
    datastore_id = coalesce(each.value.storage, var.hypervisors[each.value.hypervisor].storage)
    interface    = "scsi0"
    size         = each.value.disk_gib
    iothread     = true
    discard      = "on"
  }
  dynamic "disk" {
    for_each = each.value.extra_disks
    content {
      datastore_id = coalesce(disk.value.storage, each.value.storage, var.hypervisors[each.value.hypervisor].storage)
      interface    = "scsi${disk.key + 1}"
      size         = disk.value.size_gib
      serial       = disk.value.serial
      iothread     = true
      discard      = "on"
    }
  }
  scsi_hardware = "virtio-scsi-single"

  network_device {
    bridge = var.lab.network.bridge
    # 0 is untagged.
    vlan_id     = coalesce(each.value.vlan, var.lab.network.vlan, 0)
    mac_address = each.value.mac == null ? null : upper(each.value.mac)
  }

  operating_system {
    type = "l26"
  }
  serial_device {}

  initialization {
    datastore_id = coalesce(each.value.storage, var.hypervisors[each.value.hypervisor].storage)
    dns {
      domain  = var.lab.network.search_domain
      servers = var.lab.network.dns_servers
    }
    ip_config {
      ipv4 {
        address = "${each.value.ip}/${split("/", var.lab.network.cidr)[1]}"
        gateway = var.lab.network.gateway
      }
    }
    user_account {
      username = var.lab.user
      keys     = var.lab.keys
    }
  }

  lifecycle {
    # A machine outlives the template it came from; the user and keys of its
    # first boot belong to the platform layer afterwards; the provider sets the
    # pool but never reads it. None of it may be a reason to touch a machine.
    ignore_changes = [
      clone,
      initialization[0].user_account,
      pool_id,
    ]
  }

  # The template must exist before it is cloned; its identity must not matter after.
  depends_on = [proxmox_virtual_environment_vm.template]
}
