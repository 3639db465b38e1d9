package config

import (
	"slices"
	"strings"
)

// Concern is a part of the machines or the cluster that k3lab looks after.
type Concern string

// The concerns. Their names are those of the tags that select them, where they
// have one.
const (
	ManageOS       Concern = "os"
	ManageSSH      Concern = "ssh"
	ManageFirewall Concern = "firewall"
	ManageHA       Concern = "ha"  // the virtual address
	ManageK3s      Concern = "k3s" // its binary, settings and unit, hardening included
	ManagePolicies Concern = "policies"
)

func concerns() []Concern {
	return []Concern{ManageOS, ManageSSH, ManageFirewall, ManageHA, ManageK3s, ManagePolicies}
}

// Manages reports whether k3lab looks after that part. What it does not look
// after is left as it is, whatever the other settings say of it.
func (l *Lab) Manages(part Concern) bool { return l.Manage == nil || slices.Contains(l.Manage, part) }

// manage reads which parts k3lab looks after; nil is all of them.
func (c *checker) manage(o object) []Concern {
	if _, _, ok := o.get("manage"); !ok {
		return nil
	}
	out := []Concern{}
	for _, e := range o.texts("manage") {
		part := Concern(e.node.text)
		if !slices.Contains(concerns(), part) {
			var valid []string
			for _, k := range concerns() {
				valid = append(valid, string(k))
			}
			hint := "valid: " + strings.Join(valid, ", ")
			if near := nearest(e.node.text, valid); near != "" {
				hint = "did you mean " + near + "? " + hint
			}
			c.errorAt(e.key, hint, "%q is no part k3lab looks after", e.node.text)
			continue
		}
		out = append(out, part)
	}
	return out
}

// hardenable holds the hardening of K3s to what it needs of the machine: kubelet
// does not start where the kernel is not set as the profile wants it.
func (c *checker) hardenable(lab *Lab) {
	if lab.Manages(ManageK3s) && lab.Security.Profile == ProfileCIS && !lab.Manages(ManageOS) {
		c.errorAt("all.manage", "add os, or set security.profile: none",
			"kubelet does not start with security.profile: cis unless the kernel is set as that wants it, and os is not managed")
	}
}

// rootLogin refuses to log in as root where sshd is told to refuse root.
func (c *checker) rootLogin(lab *Lab) {
	if lab.Access.User == "root" && lab.Manages(ManageSSH) && lab.Access.HardenSSHD {
		c.errorAt("all.access.user", "choose another, such as k3lab; it gets sudo. Where there is only root: access.harden_sshd: false",
			"%q cannot be the login user where sshd is hardened", lab.Access.User)
	}
}
