# Calls the module that every workspace has, as providers.k3lab.tf does.
terraform {
  required_providers {
    proxmox = {
      source  = "bpg/proxmox"
      version = "0.80.0"
    }
  }
}

provider "proxmox" {}

variable "cores" {
  type    = number
  default = 2
}

variable "disk_gib" {
  type    = number
  default = 32
}

variable "memory_mib" {
  type    = number
  default = 4096
}

variable "checksum" {
  type    = string
  default = "00112233"
}

module "home" {
  source = "./modules/endpoint"

  lab = {
    name = "home"
    pool = "k3lab"
    image = {
      url       = "https://cloud.example/20260110-1/debian-13-genericcloud-amd64.qcow2"
      checksum  = var.checksum
      file_name = "debian-13-${var.checksum}.qcow2"
    }
    network = {
      vlan          = 150
      cidr          = "192.0.2.0/24"
      gateway       = "192.0.2.1"
      dns_servers   = ["192.0.2.53"]
      search_domain = "lab.example"
    }
    user = "k3lab"
    keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0000000000000000000000000000000000000000000 me@pc"]
  }
  hypervisors = {
    pve1 = { storage = "local-lvm", template_vmid = 9001 }
    pve2 = { storage = "local-zfs", template_vmid = 9002 }
  }
  machines = {
    server-1 = {
      role = "server", hypervisor = "pve1", vmid = 201, ip = "192.0.2.11", mac = "bc:24:11:00:00:01"
      cores = var.cores, memory_mib = var.memory_mib, disk_gib = var.disk_gib
    }
    agent-1 = {
      role = "agent", hypervisor = "pve2", vmid = 202, ip = "192.0.2.12"
      cores = 2, memory_mib = 4096, balloon_mib = 2048, disk_gib = 32
      extra_disks = [{ size_gib = 300, serial = "DATA01" }, { size_gib = 20 }]
    }
  }
}
