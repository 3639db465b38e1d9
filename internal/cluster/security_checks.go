package cluster

// checks are all there are, in the order they are shown.
func checks() []check {
	return []check{
		{"machine answers", onNodes, answers},
		{"sshd takes keys only, and no root", onNodes, sshd},
		{"firewall drops what no rule takes", onNodes, firewall},
		{"kernel settings of a hardened node", onNodes, sysctls},
		{"kubelet keeps to the kernel's settings", onNodes, kernelDefaults},
		{"secrets are encrypted in the datastore", onServers, encrypted},
		{"API requests are written to an audit log", onServers, audited},
		{"privileged pods are refused or warned of", onCluster, podSecurity},
		{"secret files are root's alone", onNodes, modes},
		{"keys on this computer are yours alone", onCluster, private},
		{"API refuses who has no credentials", onServers, anonymous(apiPort, "/api")},
		{"kubelet refuses who has no credentials", onNodes, anonymous(kubeletPort, "/pods")},
		{"kubelet's read-only port is closed", onNodes, readOnlyKubelet},
		{"etcd wants a client certificate", onServers, datastoreAsks},
		{"etcd cannot be reached from agents", onAgents, closedToAgents},
		{"API refuses old TLS", onServers, oldTLS(apiPort)},
		{"kubelet refuses old TLS", onNodes, oldTLS(kubeletPort)},
		{"virtual address is the lab's", onCluster, virtualAddress},
		{"server certificates last 30 days", onServers, expiry(apiPort, kubeletPort, 2379, 2380)},
		{"agent certificates last 30 days", onAgents, expiry(kubeletPort)},
		{"administrator's certificate lasts 30 days", onCluster, adminCertificate},
		{"roles and network policies are as written", onCluster, asWritten},
		{"nobody has rights by reaching the API", onCluster, rightsOfEverybody},
		{"no default service account may do everything", onCluster, unlimited},
	}
}
