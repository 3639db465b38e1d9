package config

import "regexp"

// Security is the security block of all.yaml: what of K3s is hardened.
type Security struct {
	Profile Profile
	// SecretsEncryption says whether a cluster that is begun encrypts Secrets in
	// its datastore. One that runs stays as it is.
	SecretsEncryption bool
	// ExposeMetrics has etcd, controller manager, scheduler and kube-proxy serve
	// their metrics on the nodes' addresses too: the default with a firewall.
	ExposeMetrics bool
	PodSecurity   PodSecurity
	Audit         Audit
}

// Profile is the set of hardening settings a lab has.
type Profile string

// The profiles. CIS is the default.
const (
	ProfileCIS  Profile = "cis"
	ProfileNone Profile = "none"
)

// PodSecurity holds the Pod Security Standards that namespaces have unless their
// labels say otherwise: privileged, baseline or restricted.
type PodSecurity struct {
	Enforce, Warn, Audit string
	Exempt               []string // namespaces, beside kube-system
}

// Audit bounds the audit log of the API, on each server.
type Audit struct {
	MaxAgeDays int
	MaxBackups int // files kept beside the one written to
	MaxSizeMiB int // of one file
}

var namespaceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func (c *checker) security(o object, firewalled bool) Security {
	s := Security{Profile: Profile(o.choice("profile", string(ProfileCIS), string(ProfileCIS), string(ProfileNone)))}
	s.SecretsEncryption = o.bool("secrets_encryption", s.Profile == ProfileCIS)
	s.ExposeMetrics = o.bool("expose_metrics", firewalled)
	pods := o.object("pod_security")
	level := func(name, fallback string) string {
		return pods.choice(name, fallback, "privileged", "baseline", "restricted")
	}
	s.PodSecurity = PodSecurity{
		Enforce: level("enforce", "privileged"), Warn: level("warn", "restricted"), Audit: level("audit", "restricted"),
	}
	for _, e := range pods.texts("exempt") {
		if !namespaceName.MatchString(e.node.text) {
			c.errorAt(e.key, "use a to z, 0 to 9 and -, at most 63 characters", "%q cannot be a namespace's name", e.node.text)
			continue
		}
		s.PodSecurity.Exempt = append(s.PodSecurity.Exempt, e.node.text)
	}
	audit := o.object("audit")
	s.Audit = Audit{
		MaxAgeDays: audit.int("max_age_days", 30, 1, 3650),
		MaxBackups: audit.int("max_backups", 10, 1, 1000),
		MaxSizeMiB: audit.int("max_size_mib", 100, 1, 10240),
	}
	for _, block := range []string{"pod_security", "audit"} {
		if _, key, ok := o.get(block); ok && s.Profile == ProfileNone {
			c.warnAt(key, "set security.profile: cis, or remove it", "it has no effect with security.profile: none")
		}
	}
	return s
}

// oneSegment holds host-gw to what it needs: it routes to the other nodes
// directly, so they must be in one network.
func (c *checker) oneSegment(lab *Lab) {
	if lab.K3s.FlannelBackend != "host-gw" {
		return
	}
	for _, m := range enabled(lab) {
		if m.Role != RoleNone && m.VLAN != 0 && m.VLAN != lab.Network.VLAN {
			c.errorAt(machineKey(m, "vlan"), "use vxlan or wireguard-native, or put every node into one VLAN",
				"%s is in another VLAN, and k3s.flannel_backend: host-gw needs all nodes in one", m.Name)
		}
	}
}
