package config

import (
	"regexp"
	"slices"
	"strings"
)

func (c *checker) readPlatform(lab *Lab, root *node) {
	if root == nil {
		return
	}
	o := object{c, stem(platformFile), root}
	o.require("lab_name", "k3s")
	lab.Name = o.text("lab_name", "")
	if lab.Name != "" && !label1123.MatchString(lab.Name) {
		c.errorAt(o.key+".lab_name", "use a to z, 0 to 9 and -, at most 63 characters", "%q cannot be a lab's name", lab.Name)
	}
	access := o.object("access")
	lab.Access = Access{User: access.text("user", "k3lab"), KeyFile: access.text("key_file", ""), HardenSSHD: access.bool("harden_sshd", true)}
	if !loginName.MatchString(lab.Access.User) {
		c.errorAt(access.key+".user", "choose another, such as k3lab; it gets sudo", "%q cannot be the login user", lab.Access.User)
	}
	for _, e := range access.texts("public_keys") {
		c.publicKey(e)
		lab.Access.PublicKeys = append(lab.Access.PublicKeys, e.node.text)
	}
	if _, _, ok := o.get("k3s"); ok {
		lab.K3s = c.k3s(o.object("k3s"))
	}
	lab.Firewall = c.firewall(o.object("firewall"))
	lab.Security = c.security(o.object("security"), lab.Firewall.Enabled)
	lab.OS = c.operatingSystem(o.object("os"))
	lab.Manage = c.manage(o)
}

var (
	loginName   = regexp.MustCompile(`^[a-z_][-a-z0-9_]{0,31}$`)
	timezone    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$`)
	packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	k3sVersion  = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-(alpha|beta|rc)[0-9]+)?\+k3s[0-9]+$`)
	k3sNear     = regexp.MustCompile(`^v?([0-9]+\.[0-9]+\.[0-9]+)(?:[-+_ ]?k3s([0-9]+))?$`)
	publicKey   = regexp.MustCompile(`^(sk-)?(ssh|ecdsa)-[a-z0-9@.-]+ AAAA[A-Za-z0-9+/=]+( .*)?$`)
)

func (c *checker) publicKey(e element) {
	text := strings.TrimSpace(e.node.text)
	switch {
	case strings.Contains(text, "PRIVATE KEY"):
		c.errorAt(e.key, "paste the one-line .pub file, and make a new pair: this one stood in a settings file", "this is a private key")
	case !publicKey.MatchString(text):
		c.errorAt(e.key, "paste the line of ~/.ssh/id_ed25519.pub", "it is not an SSH public key")
	}
}

func (c *checker) k3s(o object) K3s {
	o.require("version")
	k := K3s{
		Version:       c.k3sVersion(o),
		CNI:           o.choice("cni", "flannel", "flannel", "none"),
		PodCIDR:       o.network("pod_cidr", "10.42.0.0/16"),
		ServiceCIDR:   o.network("service_cidr", "10.43.0.0/16"),
		ClusterDomain: c.domain(o, "cluster_domain"),
		Disable:       []string{"traefik", "servicelb"},
		ServerConfig:  c.k3sConfig(o, "server_config"),
		AgentConfig:   c.k3sConfig(o, "agent_config"),
		Registries:    c.registries(o.object("registries")),
		Images:        c.images(o),
	}
	k.FlannelBackend = c.flannelBackend(o, k.CNI)
	if k.ClusterDomain == "" {
		k.ClusterDomain = "cluster.local"
	}
	if _, _, ok := o.get("disable"); ok {
		k.Disable = o.strings("disable")
	}
	c.components(o.key, k.Disable)
	return k
}

func (c *checker) flannelBackend(o object, cni string) string {
	backend := o.choice("flannel_backend", "vxlan", "vxlan", "wireguard-native", "host-gw")
	if cni == "flannel" {
		return backend
	}
	if _, key, ok := o.get("flannel_backend"); ok {
		c.errorAt(key, "remove it, or set cni: flannel", "there is no flannel with k3s.cni: none")
	}
	return ""
}

func (c *checker) k3sVersion(o object) string {
	n, key, ok := o.get("version")
	if ok && (n.kind == kindInt || n.kind == kindFloat) {
		n = &node{kind: kindText, text: n.text} // the same mistake as text
	}
	if !ok || !o.expect(n, key, kindText) || k3sVersion.MatchString(n.text) {
		return o.text("version", "")
	}
	text := n.text
	hint := "write it as K3s tags its releases: v1.36.3+k3s1"
	if m := k3sNear.FindStringSubmatch(text); m != nil {
		number := m[2]
		if number == "" {
			number = "1"
		}
		hint = "write v" + m[1] + "+k3s" + number
	}
	c.errorAt(key, hint, "%q is not a K3s version", text)
	return ""
}

// components warns of a component that K3s does not package: a slip of the
// finger would leave the one meant running. Own manifests may have any name.
func (c *checker) components(key string, names []string) {
	packaged := []string{"coredns", "local-storage", "metrics-server", "runtimes", "servicelb", "traefik"}
	for i, name := range names {
		if slices.Contains(packaged, name) {
			continue
		}
		hint := "K3s packages " + strings.Join(packaged, ", ")
		if near := nearest(name, packaged); near != "" {
			hint = "did you mean " + near + "? " + hint
		}
		c.warnAt(indexed(key+".disable", i), hint, "K3s has no component %q", name)
	}
}

// k3sConfig reads settings passed on to K3s. Those k3lab decides itself would
// undo what makes the cluster whole.
func (c *checker) k3sConfig(o object, name string) map[string]any {
	config := map[string]any{}
	for _, e := range o.entries(name) {
		if instead, ok := decided(e.name); ok {
			c.errorf(e.at, instead, "%s: k3lab decides this itself", label(e.key))
			continue
		}
		config[e.name] = e.node.value()
	}
	return config
}

func decided(key string) (instead string, ok bool) {
	const never = "remove it"
	instead, ok = map[string]string{
		"token": "it belongs in secrets.sops.yaml, k3s_token", "token-file": never, "agent-token": never, "server": never,
		"cluster-init": never, "cluster-reset": never, "data-dir": never, "datastore-endpoint": "the datastore is embedded etcd",
		"disable-etcd": never, "node-name": "a node is called like its machine", "node-ip": "set ip in nodes.yaml",
		"node-label": "set labels in nodes.yaml", "node-taint": "set taints in nodes.yaml",
		"tls-san": "set tls_sans in network.yaml", "cluster-cidr": "set pod_cidr", "service-cidr": "set service_cidr",
		"cluster-domain": "set cluster_domain", "disable": "set disable", "flannel-backend": "set flannel_backend, or cni: none",
		"secrets-encryption": "set security.secrets_encryption",
		"private-registry":   "set registries",
	}[strings.TrimSuffix(key, "+")]
	return instead, ok
}
