package options

import "github.com/k3lab/k3lab/standin/internal/flags"

func str(name string, more ...string) flags.Def  { return def(flags.String, name, more) }
func list(name string) flags.Def                 { return def(flags.List, name, nil) }
func num(name string, more ...string) flags.Def  { return def(flags.Int, name, more) }
func flag(name string, more ...string) flags.Def { return def(flags.Bool, name, more) }

// def builds a flag from its name and, optionally, its default and environment
// variable.
func def(kind flags.Kind, name string, more []string) flags.Def {
	d := flags.Def{Name: name, Kind: kind}
	if len(more) > 0 {
		d.Default = more[0]
	}
	if len(more) > 1 {
		d.Env = more[1]
	}
	return d
}

func alias(d flags.Def, names ...string) flags.Def {
	d.Aliases = names
	return d
}

func join(groups ...[]flags.Def) []flags.Def {
	var all []flags.Def
	for _, group := range groups {
		all = append(all, group...)
	}
	return all
}

// commonDefs are taken by every command that reads the configuration file.
var commonDefs = []flags.Def{
	alias(str("config"), "c"),
	flag("debug", "", "K3S_DEBUG"),
	num("v", "0"),
	str("vmodule"),
	alias(str("log"), "l"),
	flag("alsologtostderr"),
}

// nodeDefs are taken by servers and agents alike.
var nodeDefs = []flags.Def{
	alias(str("token", "", "K3S_TOKEN"), "t"),
	str("token-file", "", "K3S_TOKEN_FILE"),
	alias(str("server", "", "K3S_URL"), "s"),
	alias(str("data-dir", "", "K3S_DATA_DIR"), "d"),
	str("node-name", "", "K3S_NODE_NAME"),
	flag("with-node-id"),
	list("node-label"),
	list("node-taint"),
	alias(list("node-ip"), "i"),
	list("node-external-ip"),
	list("node-internal-dns"),
	list("node-external-dns"),
	num("lb-server-port", "6444", "K3S_LB_SERVER_PORT"),
	flag("protect-kernel-defaults"),
	flag("selinux", "", "K3S_SELINUX"),
	flag("disable-selinux"),
	flag("docker"),
	flag("rootless"),
	flag("prefer-bundled-bin"),
	flag("enable-pprof"),
	flag("supervisor-metrics"),
	flag("disable-apiserver-lb"),
	flag("disable-default-registry-endpoint"),
	flag("nonroot-devices"),
	str("container-runtime-endpoint"),
	str("default-runtime"),
	str("image-service-endpoint"),
	str("pause-image"),
	str("snapshotter"),
	str("private-registry"),
	list("airgap-extra-registry"),
	str("system-default-registry"),
	str("resolv-conf", "", "K3S_RESOLV_CONF"),
	str("flannel-iface"),
	str("flannel-conf"),
	str("flannel-cni-conf"),
	str("bind-address"),
	list("kubelet-arg"),
	list("kube-proxy-arg"),
	str("image-credential-provider-bin-dir"),
	str("image-credential-provider-config"),
	str("vpn-auth", "", "K3S_VPN_AUTH"),
	str("vpn-auth-file", "", "K3S_VPN_AUTH_FILE"),
}

// serverOnlyDefs are the rest of what a server takes. Many are accepted and
// change nothing here, because they concern parts the stand-in has not got.
var serverOnlyDefs = []flags.Def{
	num("https-listen-port", "6443"),
	num("supervisor-port"),
	str("advertise-address"),
	num("advertise-port"),
	list("tls-san"),
	flag("tls-san-security", "true"),
	list("cluster-cidr"),
	list("service-cidr"),
	str("service-node-port-range", "30000-32767"),
	list("cluster-dns"),
	str("cluster-domain", "cluster.local"),
	str("flannel-backend", "vxlan"),
	flag("flannel-ipv6-masq"),
	flag("flannel-external-ip"),
	str("egress-selector-mode", "agent"),
	str("servicelb-namespace", "kube-system"),
	alias(str("write-kubeconfig", "", "K3S_KUBECONFIG_OUTPUT"), "o"),
	str("write-kubeconfig-mode", "", "K3S_KUBECONFIG_MODE"),
	str("write-kubeconfig-group", "", "K3S_KUBECONFIG_GROUP"),
	str("helm-job-image"),
	str("agent-token", "", "K3S_AGENT_TOKEN"),
	str("agent-token-file", "", "K3S_AGENT_TOKEN_FILE"),
	flag("cluster-init", "", "K3S_CLUSTER_INIT"),
	flag("cluster-reset", "", "K3S_CLUSTER_RESET"),
	str("cluster-reset-restore-path"),
	list("kube-apiserver-arg"),
	list("etcd-arg"),
	list("kube-controller-manager-arg"),
	list("kube-scheduler-arg"),
	list("kube-cloud-controller-manager-arg"),
	str("datastore-endpoint", "", "K3S_DATASTORE_ENDPOINT"),
	str("datastore-cafile", "", "K3S_DATASTORE_CAFILE"),
	str("datastore-certfile", "", "K3S_DATASTORE_CERTFILE"),
	str("datastore-keyfile", "", "K3S_DATASTORE_KEYFILE"),
	flag("kine-tls"),
	str("default-local-storage-path"),
	list("disable"),
	flag("disable-agent"),
	flag("disable-scheduler"),
	flag("disable-cloud-controller"),
	flag("disable-kube-proxy"),
	flag("disable-network-policy"),
	flag("disable-helm-controller"),
	flag("disable-apiserver"),
	flag("disable-controller-manager"),
	flag("disable-etcd"),
	flag("embedded-registry"),
	flag("secrets-encryption"),
	str("secrets-encryption-provider", "aescbc"),
}

// etcdDefs configure datastore snapshots; `etcd-snapshot` knows them too.
var etcdDefs = []flags.Def{
	flag("etcd-expose-metrics"),
	flag("etcd-disable-snapshots"),
	str("etcd-snapshot-name", "etcd-snapshot"),
	str("etcd-snapshot-schedule-cron", "0 */12 * * *"),
	{Name: "etcd-snapshot-reconcile-interval", Kind: flags.Duration, Default: "10m"},
	num("etcd-snapshot-retention", "5"),
	str("etcd-snapshot-dir"),
	flag("etcd-snapshot-compress"),
	flag("etcd-s3"),
	str("etcd-s3-endpoint"),
	str("etcd-s3-endpoint-ca"),
	flag("etcd-s3-skip-ssl-verify"),
	str("etcd-s3-access-key", "", "AWS_ACCESS_KEY_ID"),
	str("etcd-s3-secret-key", "", "AWS_SECRET_ACCESS_KEY"),
	str("etcd-s3-session-token", "", "AWS_SESSION_TOKEN"),
	str("etcd-s3-bucket"),
	str("etcd-s3-bucket-lookup-type"),
	str("etcd-s3-region"),
	str("etcd-s3-folder"),
	str("etcd-s3-proxy"),
	str("etcd-s3-config-secret"),
	num("etcd-s3-retention", "5"),
	flag("etcd-s3-insecure"),
	{Name: "etcd-s3-timeout", Kind: flags.Duration, Default: "5m"},
}

// The flag tables of the commands.
var (
	ServerDefs = join(commonDefs, nodeDefs, serverOnlyDefs, etcdDefs)
	AgentDefs  = join(commonDefs, nodeDefs)
	// SnapshotDefs are those of `k3s etcd-snapshot`. Only flags that it really
	// knows are here: others in the configuration file are skipped with a
	// warning.
	SnapshotDefs = join(commonDefs, []flags.Def{
		str("node-name", "", "K3S_NODE_NAME"),
		alias(str("data-dir", "", "K3S_DATA_DIR"), "d"),
		alias(str("token", "", "K3S_TOKEN"), "t", "etcd-token"),
		alias(str("server", "", "K3S_URL"), "s", "etcd-server"),
		alias(str("dir"), "etcd-snapshot-dir"),
		str("name", "on-demand"),
		alias(flag("snapshot-compress"), "etcd-snapshot-compress"),
		alias(num("snapshot-retention", "5"), "etcd-snapshot-retention"),
		alias(str("output"), "o"),
		alias(flag("s3"), "etcd-s3"),
	}, s3SnapshotDefs())
)

// s3SnapshotDefs names each S3 flag the way `etcd-snapshot` does (--s3-bucket)
// with its configuration key as the other name.
func s3SnapshotDefs() []flags.Def {
	var defs []flags.Def
	for _, d := range etcdDefs {
		if len(d.Name) > len("etcd-s3-") && d.Name[:len("etcd-s3-")] == "etcd-s3-" {
			defs = append(defs, alias(flags.Def{Name: d.Name[len("etcd-"):], Kind: d.Kind}, d.Name))
		}
	}
	return defs
}
