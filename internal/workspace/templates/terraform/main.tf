# The key pair to log in with. The private key never enters the state.
resource "k3lab_ssh_key" "operator" {
  private_key_path  = "${local.workspace}/.k3lab/ssh/id_ed25519"
  secrets_file      = "${local.workspace}/secrets.sops.yaml"
  existing_key_file = local.key_file == "" ? null : can(regex("^[~/]", local.key_file)) ? pathexpand(local.key_file) : "${local.workspace}/${local.key_file}"
  user_public_keys  = try([for key in local.platform.access.public_keys : trimspace(key)], [])
}

resource "k3lab_inventory" "hosts" {
  path             = "${local.workspace}/ansible/inventory/hosts.ini"
  user             = local.access_user
  private_key_path = coalesce(k3lab_ssh_key.operator.existing_key_file, k3lab_ssh_key.operator.private_key_path)
  known_hosts_path = "${local.workspace}/.k3lab/known_hosts"
  machines = {
    for name, machine in local.machines : name => {
      role   = machine.role
      ip     = machine.ip
      labels = try({ for key, value in machine.labels : key => tostring(value) }, {})
    }
  }
}

# What a module call of providers.k3lab.tf needs besides its endpoint.
locals {
  lab = {
    name    = local.platform.lab_name
    pool    = try(coalesce(local.proxmox.pool), "k3lab")
    image   = try(local.proxmox.image, null)
    network = local.network
    user    = local.access_user
    keys    = k3lab_ssh_key.operator.authorized_keys
  }
}
