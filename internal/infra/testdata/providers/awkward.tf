# Written by k3lab from vars/proxmox.yaml; a change here is lost. Terraform wants
# a provider alias and a module call for every endpoint, spelled out.

provider "proxmox" {
  alias     = "_9_lab"
  endpoint  = local.proxmox.endpoints["9.lab"].url
  api_token = lookup(var.proxmox_api_tokens, "9.lab", null)
}

module "endpoint__9_lab" {
  source    = "./modules/endpoint"
  providers = { proxmox = proxmox._9_lab }

  lab         = local.lab
  hypervisors = local.hypervisors["9.lab"]
  machines = {
    for name, machine in local.virtual_machines : name => machine if local.endpoint_of[name] == "9.lab"
  }
}

provider "proxmox" {
  alias     = "a_b"
  endpoint  = local.proxmox.endpoints["a.b"].url
  api_token = lookup(var.proxmox_api_tokens, "a.b", null)
}

module "endpoint_a_b" {
  source    = "./modules/endpoint"
  providers = { proxmox = proxmox.a_b }

  lab         = local.lab
  hypervisors = local.hypervisors["a.b"]
  machines = {
    for name, machine in local.virtual_machines : name => machine if local.endpoint_of[name] == "a.b"
  }
}

provider "proxmox" {
  alias     = "a_b_"
  endpoint  = local.proxmox.endpoints["a_b"].url
  api_token = lookup(var.proxmox_api_tokens, "a_b", null)
}

module "endpoint_a_b_" {
  source    = "./modules/endpoint"
  providers = { proxmox = proxmox.a_b_ }

  lab         = local.lab
  hypervisors = local.hypervisors["a_b"]
  machines = {
    for name, machine in local.virtual_machines : name => machine if local.endpoint_of[name] == "a_b"
  }
}

provider "proxmox" {
  alias     = "_-x"
  endpoint  = local.proxmox.endpoints["-x"].url
  api_token = lookup(var.proxmox_api_tokens, "-x", null)
}

module "endpoint__-x" {
  source    = "./modules/endpoint"
  providers = { proxmox = proxmox._-x }

  lab         = local.lab
  hypervisors = local.hypervisors["-x"]
  machines = {
    for name, machine in local.virtual_machines : name => machine if local.endpoint_of[name] == "-x"
  }
}

locals {
  endpoints_called = ["9.lab", "a.b", "a_b", "-x"]
}
