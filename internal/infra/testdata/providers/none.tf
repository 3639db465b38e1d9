# Written by k3lab from vars/proxmox.yaml; a change here is lost. Terraform wants
# a provider alias and a module call for every endpoint, spelled out.

locals {
  endpoints_called = []
}
