# Written by k3lab from vars/proxmox.yaml; a change here is lost. Terraform wants
# a provider alias and a module call for every endpoint, spelled out.

provider "proxmox" {
  alias     = "home"
  endpoint  = local.proxmox.endpoints["home"].url
  api_token = lookup(var.proxmox_api_tokens, "home", null)
}

module "endpoint_home" {
  source    = "./modules/endpoint"
  providers = { proxmox = proxmox.home }

  lab         = local.lab
  hypervisors = local.hypervisors["home"]
  machines = {
    for name, machine in local.virtual_machines : name => machine if local.endpoint_of[name] == "home"
  }
}

locals {
  endpoints_called = ["home"]
}
