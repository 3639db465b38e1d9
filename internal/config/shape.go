package config

// shape says which keys a part of a settings file may have. The one description
// serves the check for unknown keys, the names other labs use and Format.
type shape struct {
	keys  map[string]*shape  // the valid keys; nil: any
	other map[string]foreign // names other labs use for them
	each  *shape             // what stands under free keys
	items *shape             // what stands in a list
}

func (s *shape) under(key string) *shape {
	if s.keys != nil {
		return s.keys[key]
	}
	return s.each
}

// keys makes shapes of plain values.
func keys(names ...string) map[string]*shape {
	m := make(map[string]*shape, len(names))
	for _, name := range names {
		m[name] = &shape{}
	}
	return m
}

// Files are the settings files of a workspace, in the order they are reported.
// The array is the contract; Load reads no other file.
var Files = [...]string{nodesFile, networkFile, proxmoxFile, platformFile}

const (
	nodesFile    = "terraform/vars/nodes.yaml"
	networkFile  = "terraform/vars/network.yaml"
	proxmoxFile  = "terraform/vars/proxmox.yaml"
	platformFile = "ansible/group_vars/all.yaml"
)

// shapeOf returns the shape of a settings file, or nil.
func shapeOf(file string) *shape {
	switch file {
	case nodesFile:
		return nodesShape()
	case networkFile:
		return networkShape()
	case proxmoxFile:
		return proxmoxShape()
	case platformFile:
		return platformShape()
	default:
		return nil
	}
}

func nodesShape() *shape {
	disk := &shape{
		keys: keys("size_gib", "storage", "serial", "file_system", "mount"),
		other: foreignNames(
			rename("size_gib", toGiB, "size", "size_gb", "disk_size"),
			rename("storage", same, "datastore", "datastore_id"),
			rename("file_system", same, "fs", "fstype", "filesystem", "format"),
			rename("mount", same, "mountpoint", "mount_point", "mount_path", "path"),
		),
	}
	machine := &shape{
		keys: keys("role", "enabled", "hypervisor", "vmid", "ip", "mac", "cores", "memory_mib", "balloon_mib",
			"disk_gib", "storage", "template_vmid", "vlan", "arch", "on_boot", "adopted"),
		other: foreignNames(
			rename("role", toRole, "type", "node_type", "kind"),
			rename("role", flagToRole, "controlplane", "control_plane", "controller"),
			rename("hypervisor", same, "target_node", "node", "node_name", "proxmox_node", "pve_node", "host_node", "host"),
			rename("vmid", toInt, "vm_id", "id"),
			rename("ip", toAddress, "address", "ip_address", "ip_addr", "ipv4", "ipv4_address", "ansible_host"),
			rename("mac", toMAC, "macaddr", "mac_address", "macaddress", "mac_addr", "hwaddr"),
			rename("cores", toInt, "cpu", "cpus", "cpu_cores", "vcpu", "vcpus", "num_cores"),
			rename("memory_mib", toMiB, "ram", "memory", "mem", "memory_mb", "ram_mb", "ram_dedicated"),
			rename("balloon_mib", toMiB, "balloon", "ballooning", "ram_floating"),
			rename("disk_gib", toGiB, "disk", "disk_size", "disk_gb", "disksize", "rootfs_size"),
			rename("storage", same, "datastore", "datastore_id", "storage_pool"),
			rename("template_vmid", toInt, "template", "template_id", "clone_id"),
			rename("vlan", toInt, "vlan_id", "vlan_tag"),
			rename("extra_disks", same, "disks", "data_disks", "additional_disks"),
			rename("labels", same, "node_labels"),
			rename("taints", same, "node_taints"),
			rename("arch", toArch, "architecture", "cpu_arch"),
			rename("enabled", same, "enable"),
			rename("on_boot", same, "onboot", "start_on_boot"),
		),
	}
	machine.keys["extra_disks"] = &shape{items: disk}
	machine.keys["labels"] = &shape{}
	machine.keys["taints"] = &shape{}
	return &shape{
		keys: map[string]*shape{"defaults": machine, "machines": {each: machine}, "servers_spread": {}},
		other: foreignNames(
			rename("machines", same, "nodes", "vms", "virtual_machines", "hosts", "cluster_nodes"),
			rename("defaults", same, "default", "node_defaults", "common"),
		),
	}
}

func networkShape() *shape {
	return &shape{
		keys: keys("bridge", "vlan", "cidr", "gateway", "dns_servers", "search_domain", "ntp_servers", "vip", "vip_name",
			"vip_provider", "vip_image", "vrrp_id", "tls_sans", "load_balancer_pool", "reserved", "admin_networks"),
		other: foreignNames(
			rename("bridge", same, "network_bridge", "vmbr"),
			rename("vlan", toInt, "vlan_id", "vlan_tag"),
			rename("cidr", same, "subnet", "network", "network_cidr", "node_cidr"),
			rename("gateway", toAddress, "gw", "gateway_ip", "default_gateway", "node_default_gateway"),
			rename("dns_servers", toList, "dns", "dns_server", "nameserver", "nameservers", "name_servers", "node_dns_servers"),
			rename("search_domain", same, "domain", "dns_domain", "searchdomain"),
			rename("ntp_servers", toList, "ntp", "ntp_server", "node_ntp_servers"),
			rename("vip", toAddress, "virtual_ip", "vip_address", "kube_vip", "apiserver_endpoint", "cluster_api_addr"),
			rename("vip_name", same, "vip_hostname", "api_hostname"),
			rename("vrrp_id", toInt, "virtual_router_id"),
			rename("tls_sans", toList, "tls_san", "extra_sans", "cluster_api_tls_sans"),
			rename("load_balancer_pool", toList, "lb_pool", "metallb_pool", "metallb_range", "metal_lb_ip_range", "lb_ip_range"),
			rename("reserved", toList, "reserved_ips", "excluded"),
			rename("admin_networks", toList, "admin_cidrs", "allowed_networks"),
		),
	}
}

func proxmoxShape() *shape {
	endpoint := &shape{
		keys: keys("url", "ca_file"),
		other: foreignNames(
			rename("url", same, "api_url", "endpoint", "pm_api_url", "api"),
			rename("ca_file", same, "ca", "ca_cert", "cacert"),
		),
	}
	hypervisor := &shape{
		keys: keys("endpoint", "storage", "image_storage", "template_vmid", "user_template", "memory_mib"),
		other: foreignNames(
			rename("endpoint", same, "cluster"),
			rename("storage", same, "datastore", "datastore_id", "storage_pool"),
			rename("image_storage", same, "iso_storage", "image_datastore", "image_datastore_id"),
			rename("template_vmid", toInt, "template", "template_id", "template_vm_id"),
			rename("memory_mib", toMiB, "ram", "memory", "mem", "memory_mb"),
		),
	}
	image := &shape{
		keys: keys("url", "checksum", "checksum_algorithm", "file_name"),
		other: foreignNames(
			rename("url", same, "image_url", "source"),
			rename("checksum", same, "hash", "digest"),
			rename("checksum_algorithm", same, "algorithm", "hash_algorithm"),
			rename("file_name", same, "filename", "file"),
		),
	}
	return &shape{
		keys: map[string]*shape{"endpoints": {each: endpoint}, "hypervisors": {each: hypervisor}, "pool": {}, "image": image},
		other: foreignNames(
			rename("hypervisors", same, "nodes", "hosts", "pve_nodes", "proxmox_nodes"),
			rename("endpoints", same, "clusters", "apis"),
			rename("pool", same, "resource_pool", "pool_id"),
			rename("image", same, "cloud_image"),
		),
	}
}

func platformShape() *shape {
	access := &shape{
		keys: keys("user", "public_keys", "key_file", "harden_sshd"),
		other: foreignNames(
			rename("user", same, "username", "ssh_user", "ssh_username", "ansible_user"),
			rename("public_keys", toList, "ssh_keys", "ssh_public_keys", "authorized_keys", "ssh_authorized_keys", "public_key", "ssh_key"),
			rename("key_file", same, "private_key", "private_key_file", "ssh_private_key_file"),
		),
	}
	k3s := &shape{
		keys: keys("version", "cni", "flannel_backend", "pod_cidr", "service_cidr", "cluster_domain", "disable", "server_config", "agent_config", "images"),
		other: foreignNames(
			rename("version", same, "k3s_version", "release"),
			rename("pod_cidr", same, "cluster_cidr", "cluster-cidr", "pod_network", "pod_subnet", "cluster_pod_cidr"),
			rename("service_cidr", same, "service-cidr", "svc_cidr", "service_network", "service_subnet", "cluster_svc_cidr"),
			rename("cluster_domain", same, "cluster-domain", "dns_domain"),
			rename("disable", toList, "disabled", "disable_components"),
			rename("cni", same, "network_plugin"),
			rename("flannel_backend", same, "flannel-backend"),
		),
	}
	k3s.keys["registries"] = registriesShape()
	operatingSystem := &shape{
		keys: keys("timezone", "packages", "unattended_upgrades", "journald_max_mib", "banner"),
		other: foreignNames(
			rename("timezone", same, "tz", "time_zone", "system_timezone"),
			rename("packages", toList, "apt_packages", "extra_packages"),
		),
	}
	security := &shape{keys: keys("profile", "secrets_encryption", "expose_metrics")}
	security.keys["pod_security"] = &shape{
		keys:  keys("enforce", "warn", "audit", "exempt"),
		other: foreignNames(rename("exempt", toList, "exemptions", "exempt_namespaces")),
	}
	security.keys["audit"] = &shape{keys: keys("max_age_days", "max_backups", "max_size_mib")}
	return &shape{
		keys: map[string]*shape{"lab_name": {}, "access": access, "k3s": k3s, "os": operatingSystem, "firewall": firewallShape(), "security": security, "manage": {}},
		other: foreignNames(
			rename("lab_name", same, "cluster_name", "labname"),
			elsewhere("k3s.version", "k3s_version"),
			elsewhere("access.user", "ansible_user", "ssh_user", "ssh_username"),
			elsewhere("k3s.pod_cidr", "cluster_cidr", "pod_cidr", "cluster_pod_cidr"),
			elsewhere("k3s.service_cidr", "service_cidr", "cluster_svc_cidr"),
			elsewhere("k3s.server_config", "extra_server_args", "server_config_yaml"),
			elsewhere("k3s.agent_config", "extra_agent_args"),
			elsewhere("os.timezone", "system_timezone", "timezone"),
		),
	}
}
