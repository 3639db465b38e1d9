# The settings files, read as they are. Nothing is set anywhere else.
locals {
  workspace = "${path.root}/.."
  nodes     = yamldecode(file("${path.root}/vars/nodes.yaml"))
  network   = yamldecode(file("${path.root}/vars/network.yaml"))
  proxmox   = yamldecode(fileexists("${path.root}/vars/proxmox.yaml") ? file("${path.root}/vars/proxmox.yaml") : "{}")
  platform  = yamldecode(file("${local.workspace}/ansible/group_vars/all.yaml"))

  # What a machine is unless nodes.yaml says otherwise.
  machine_defaults = {
    role       = "agent"
    enabled    = true
    cores      = 2
    memory_mib = 4096
    disk_gib   = 32
  }
  role_synonyms = { master = "server", worker = "agent" }

  described = {
    for name, settings in local.nodes.machines : name => merge(
      local.machine_defaults,
      try({ for key, value in local.nodes.defaults : key => value if value != null }, {}),
      try({ for key, value in settings : key => value if value != null }, {}),
    )
  }
  machines = {
    for name, machine in local.described : name => merge(machine, {
      role = lookup(local.role_synonyms, machine.role, machine.role)
    }) if machine.enabled
  }

  # Metal and foreign machines are nodes of the cluster that no hypervisor of
  # this lab carries.
  virtual_machines = {
    for name, machine in local.machines : name => machine if machine.hypervisor != "none"
  }

  endpoints = try(keys(local.proxmox.endpoints), [])
  hypervisors = {
    for endpoint in local.endpoints : endpoint => {
      for name, hypervisor in local.proxmox.hypervisors : name => hypervisor if hypervisor.endpoint == endpoint
    }
  }
  # The endpoint that carries a machine. A name nothing answers to is an error
  # here: a machine must never drop out of the plan because of one.
  endpoint_of = {
    for name, machine in local.virtual_machines : name => [
      for endpoint in [local.proxmox.hypervisors[machine.hypervisor].endpoint] : endpoint
      if local.proxmox.endpoints[endpoint].url != ""
    ][0]
  }

  access_user = try(coalesce(local.platform.access.user), "k3lab")
  key_file    = try(coalesce(local.platform.access.key_file), "")
}
