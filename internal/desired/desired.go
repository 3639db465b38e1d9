// Package desired computes, from the lab's settings alone, what each machine
// should look like. It is pure: nothing is read from anywhere and nothing is
// written, so the result can be compared, printed and tested.
package desired

import (
	"fmt"
	"slices"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
)

// The tags that select resources of one concern.
const (
	TagOS       = "os"
	TagSSH      = "ssh"
	TagFirewall = "firewall"
	TagHA       = "ha"
	TagK3s      = "k3s"
	// TagHardening selects K3s's hardening; the files are K3s's, too.
	TagHardening = "hardening"
)

// Tags returns all tags, in the order in which a run that goes through a state tag
// by tag takes them.
func Tags() []string { return []string{TagOS, TagSSH, TagFirewall, TagHA, TagK3s, TagHardening} }

// Inputs is what the desired state needs beside the settings.
type Inputs struct {
	// AuthorizedKeys are who may log in, as lines of authorized_keys; among them
	// the key k3lab logs in with.
	AuthorizedKeys []string
	RetiredKeys    []string // lines of authorized_keys that nobody may log in with any more
	Token          string   // cluster token agreed beforehand; secret
	BinarySHA256   string   // hex digest of the K3s binary for the machine's architecture
	BinarySource   string   // path on the machine the binary is installed from
	Interface      string   // network interface that holds the machine's address; servers need it for the VIP
	// Bootstrap makes this server begin a new cluster. It may be set for one
	// server only, and only while no server has a datastore.
	Bootstrap bool
	// JoinURL is where a server without a datastore finds the cluster, and an agent
	// where the VIP is kept by pods; empty with Bootstrap.
	JoinURL string
	Secrets map[string]string // key → value, of those the settings refer to
	Files   map[string]string // content, by the path in the settings
	Images  []Archive         // archives of container images
	// EncryptSecrets is whether Secrets are encrypted in the datastore. All servers
	// of a cluster must agree, and one that runs without must not be given it:
	// each server would make a key of its own.
	EncryptSecrets bool
}

// Node returns the desired state of one node of the lab: of the parts that k3lab
// looks after.
func Node(lab *config.Lab, m *config.Machine, in Inputs) (converger.State, error) {
	s := converger.State{Machine: m.Name}
	if lab.Manages(config.ManageOS) {
		s.Resources = append(s.Resources, operatingSystem(lab, m)...)
	}
	if lab.Manages(config.ManageSSH) {
		s.Resources = append(s.Resources, secureShell(lab, in)...)
	}
	if lab.Manages(config.ManageFirewall) {
		s.Resources = append(s.Resources, firewall(lab, m)...)
	}
	if m.Role == config.RoleServer && lab.Manages(config.ManageHA) {
		s.Resources = append(s.Resources, virtualAddress(lab, m, in)...)
	}
	if lab.Manages(config.ManageK3s) {
		k3s, err := k3sNode(lab, m, in)
		if err != nil {
			return converger.State{}, fmt.Errorf("%s: %w", m.Name, err)
		}
		s.Resources = append(s.Resources, k3s...)
	}
	s.Resources = once(s.Resources)
	return s, nil
}

// LogIn is the part of a node's desired state that says who may log in.
func LogIn(lab *config.Lab, m *config.Machine, in Inputs) converger.State {
	return converger.State{Machine: m.Name, Resources: tagged(TagSSH, authorizedKeys(lab, in))}
}

// once drops packages that stand there already: the settings may list one that
// is needed anyway.
func once(resources []converger.Resource) []converger.Resource {
	seen := map[string]bool{}
	return slices.DeleteFunc(resources, func(r converger.Resource) bool {
		again := r.Package != nil && seen[r.Package.Name]
		if r.Package != nil {
			seen[r.Package.Name] = true
		}
		return again
	})
}

func tagged(tag string, resources ...converger.Resource) []converger.Resource {
	for i := range resources {
		resources[i].Tags = []string{tag}
	}
	return resources
}

func file(path, content string, mode uint32) converger.Resource {
	return converger.Resource{File: &converger.File{Path: path, Content: content, Mode: mode}}
}

func secretFile(path, content string) converger.Resource {
	return converger.Resource{File: &converger.File{Path: path, Content: content, Mode: 0o600, Secret: true}}
}

func directory(path string, mode uint32) converger.Resource {
	return converger.Resource{Directory: &converger.Directory{Path: path, Mode: mode}}
}
