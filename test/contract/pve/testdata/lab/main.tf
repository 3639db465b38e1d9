# Exercises what k3lab asks of the provider: template, clones, cloud-init,
# pool, firewall, several disks.
terraform {
  required_providers {
    proxmox = {
      source  = "bpg/proxmox"
      version = "0.80.0"
    }
  }
}

provider "proxmox" {}

variable "disk_gib" {
  type    = number
  default = 12
}

variable "dns_servers" {
  type    = list(string)
  default = ["192.0.2.53"]
}

variable "cores" {
  type    = number
  default = 2
}

variable "machines" {
  type = map(object({ hypervisor = string, vmid = number, ip = string, mac = string, vlan = number }))
  default = {
    server-1 = { hypervisor = "pve1", vmid = 201, ip = "192.0.2.11/24", mac = "BC:24:11:00:00:01", vlan = 150 }
    server-2 = { hypervisor = "pve2", vmid = 202, ip = "192.0.2.12/24", mac = "BC:24:11:00:00:02", vlan = 150 }
    agent-1  = { hypervisor = "pve1", vmid = 203, ip = "192.0.2.13/24", mac = "BC:24:11:00:00:03", vlan = 150 }
  }
}

locals {
  hypervisors = toset([for m in var.machines : m.hypervisor])
}

resource "proxmox_virtual_environment_pool" "lab" {
  pool_id = "lab"
  comment = "a lab"
}

resource "proxmox_virtual_environment_download_file" "image" {
  for_each           = local.hypervisors
  node_name          = each.key
  datastore_id       = "local"
  content_type       = "import"
  url                = "https://cloud.example/20260110-1/debian-13-genericcloud-amd64.qcow2"
  file_name          = "debian-13-20260110-1.qcow2"
  checksum           = "00112233"
  checksum_algorithm = "sha512"
  overwrite          = false
}

resource "proxmox_virtual_environment_vm" "template" {
  for_each  = local.hypervisors
  name      = "template-${each.key}"
  node_name = each.key
  vm_id     = each.key == "pve1" ? 9001 : 9002
  template  = true
  started   = false
  tags      = ["template"]

  cpu { cores = 1 }
  memory { dedicated = 1024 }
  disk {
    datastore_id = "local-lvm"
    interface    = "scsi0"
    import_from  = proxmox_virtual_environment_download_file.image[each.key].id
    size         = 4
    discard      = "on"
  }
  network_device { bridge = "vmbr0" }
  operating_system { type = "l26" }
  scsi_hardware = "virtio-scsi-single"
  serial_device {}
}

resource "proxmox_virtual_environment_vm" "machine" {
  for_each            = var.machines
  name                = each.key
  node_name           = each.value.hypervisor
  vm_id               = each.value.vmid
  pool_id             = proxmox_virtual_environment_pool.lab.pool_id
  tags                = ["lab", "server"]
  on_boot             = true
  started             = true
  stop_on_destroy     = true
  migrate             = true
  description         = "made by a test"
  reboot_after_update = false

  clone {
    vm_id     = proxmox_virtual_environment_vm.template[each.value.hypervisor].vm_id
    node_name = each.value.hypervisor
    full      = true
  }
  cpu {
    cores = var.cores
    type  = "x86-64-v2-AES"
  }
  memory {
    dedicated = 2048
    floating  = 1024
  }
  disk {
    datastore_id = "local-lvm"
    interface    = "scsi0"
    size         = var.disk_gib
    discard      = "on"
    iothread     = true
    ssd          = true
  }
  disk {
    datastore_id = "local-zfs"
    interface    = "scsi1"
    size         = 20
    serial       = "DATA01"
    file_format  = "raw"
  }
  network_device {
    bridge      = "vmbr0"
    mac_address = each.value.mac
    vlan_id     = each.value.vlan
    firewall    = true
  }
  initialization {
    datastore_id = "local-lvm"
    dns {
      domain  = "lab.example"
      servers = var.dns_servers
    }
    ip_config {
      ipv4 {
        address = each.value.ip
        gateway = "192.0.2.1"
      }
    }
    user_account {
      username = "k3lab"
      keys     = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0000000000000000000000000000000000000000000 me@pc"]
    }
  }
  agent {
    enabled = true
    timeout = "30s"
  }
  startup {
    order    = 3
    up_delay = 10
  }
  operating_system { type = "l26" }
  scsi_hardware = "virtio-scsi-single"
  serial_device {}

  lifecycle { ignore_changes = [clone] }
}

resource "proxmox_virtual_environment_firewall_ipset" "admin" {
  name    = "admin"
  comment = "admin networks"
  cidr {
    name    = "192.0.2.0/24"
    comment = "office"
  }
  cidr { name = "198.51.100.7" }
}

resource "proxmox_virtual_environment_firewall_alias" "vip" {
  name    = "vip"
  cidr    = "192.0.2.10"
  comment = "the API server"
}

resource "proxmox_virtual_environment_cluster_firewall_security_group" "lab" {
  name    = "lab"
  comment = "machines of the lab"
  rule {
    type    = "in"
    action  = "ACCEPT"
    proto   = "tcp"
    dport   = "22,6443"
    source  = "+admin"
    comment = "admins"
  }
  rule {
    type   = "in"
    action = "ACCEPT"
    macro  = "Ping"
  }
  depends_on = [proxmox_virtual_environment_firewall_ipset.admin]
}

resource "proxmox_virtual_environment_firewall_options" "machine" {
  for_each      = var.machines
  node_name     = proxmox_virtual_environment_vm.machine[each.key].node_name
  vm_id         = proxmox_virtual_environment_vm.machine[each.key].vm_id
  enabled       = true
  dhcp          = false
  input_policy  = "DROP"
  output_policy = "ACCEPT"
}

resource "proxmox_virtual_environment_firewall_rules" "machine" {
  for_each  = var.machines
  node_name = proxmox_virtual_environment_vm.machine[each.key].node_name
  vm_id     = proxmox_virtual_environment_vm.machine[each.key].vm_id
  rule {
    security_group = proxmox_virtual_environment_cluster_firewall_security_group.lab.name
    comment        = "everything the lab has"
  }
  rule {
    type    = "in"
    action  = "ACCEPT"
    source  = "192.0.2.0/24"
    comment = "each other"
  }
}

output "addresses" {
  value = { for k, m in proxmox_virtual_environment_vm.machine : k => m.ipv4_addresses }
}
