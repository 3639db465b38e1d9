# Machines are clones of one template per hypervisor, so that a disk can grow in
# place: only the template's disk is ever made from the image.
locals {
  templates = {
    for name, hypervisor in var.hypervisors : name => hypervisor
    if !hypervisor.user_template && hypervisor.template_vmid != null
  }
}

resource "proxmox_virtual_environment_pool" "lab" {
  pool_id = var.lab.pool
  comment = "machines of the home lab ${var.lab.name}, kept by k3lab"
}

resource "proxmox_virtual_environment_download_file" "image" {
  for_each = local.templates

  node_name          = each.key
  datastore_id       = each.value.image_storage
  content_type       = "import"
  url                = var.lab.image.url
  file_name          = var.lab.image.file_name
  checksum           = lower(var.lab.image.checksum)
  checksum_algorithm = var.lab.image.checksum_algorithm

  # The checksum is the proof; the size on the server is not asked for again.
  overwrite = false
  # An interrupted run may have left the file.
  overwrite_unmanaged = true
}

# What a template is made from; when it changes, the template is made anew.
resource "terraform_data" "template" {
  for_each = local.templates

  input = {
    vmid     = each.value.template_vmid
    storage  = each.value.storage
    checksum = lower(var.lab.image.checksum)
  }
}

resource "proxmox_virtual_environment_vm" "template" {
  for_each = local.templates

  name      = "k3lab-template-${each.value.template_vmid}"
  node_name = each.key
  vm_id     = each.value.template_vmid
  pool_id   = proxmox_virtual_environment_pool.lab.pool_id
  tags      = ["k3lab", "template"]
  template  = true
  started   = false
  on_boot   = false

  boot_order = ["scsi0"]
  disk {
    datastore_id = each.value.storage
    interface    = "scsi0"
    import_from  = proxmox_virtual_environment_download_file.image[each.key].id
    size         = var.template_disk_gib
    iothread     = true
    discard      = "on"
  }
  scsi_hardware = "virtio-scsi-single"
  operating_system {
    type = "l26"
  }
  serial_device {}

  lifecycle {
    # Whatever is done to a template by hand is no reason to touch it. (Not "all":
    # a template taken over from an interrupted run needs its timeouts set.)
    ignore_changes = [
      agent, boot_order, cpu, description, disk, initialization, memory, name,
      node_name, operating_system, pool_id, scsi_hardware, serial_device, tags, vga,
    ]
    replace_triggered_by = [terraform_data.template[each.key]]
  }
}
