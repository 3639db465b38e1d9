variable "lab" {
  description = "What all endpoints share."
  type = object({
    name = string
    pool = string
    image = optional(object({
      url                = string
      checksum           = string
      checksum_algorithm = optional(string, "sha512")
      file_name          = string
    }))
    network = object({
      bridge        = optional(string, "vmbr0")
      vlan          = optional(number)
      cidr          = string
      gateway       = optional(string)
      dns_servers   = optional(list(string), [])
      search_domain = optional(string)
    })
    user = string
    keys = list(string)
  })
}

variable "hypervisors" {
  description = "The hypervisors behind this endpoint."
  type = map(object({
    storage       = string
    image_storage = optional(string, "local")
    template_vmid = optional(number)
    user_template = optional(bool, false)
  }))
}

variable "machines" {
  description = "The machines these hypervisors carry."
  type = map(object({
    role          = string
    hypervisor    = string
    vmid          = number
    ip            = string
    mac           = optional(string)
    cores         = number
    memory_mib    = number
    balloon_mib   = optional(number, 0)
    disk_gib      = number
    storage       = optional(string)
    template_vmid = optional(number)
    vlan          = optional(number)
    on_boot       = optional(bool, true)
    adopted       = optional(bool, false)
    extra_disks = optional(list(object({
      size_gib = number
      storage  = optional(string)
      serial   = optional(string, "")
    })), [])
  }))
}

variable "template_disk_gib" {
  description = "Disk of the template: no smaller than the image's, no larger than the smallest machine's."
  type        = number
  default     = 4
}
