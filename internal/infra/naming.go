package infra

import (
	"fmt"
	"regexp"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"

	"github.com/k3lab/k3lab/internal/config"
)

// The resource types of the workspace's configuration.
const (
	typeVM        = "proxmox_virtual_environment_vm"
	typeImage     = "proxmox_virtual_environment_download_file"
	typePool      = "proxmox_virtual_environment_pool"
	typeKey       = "k3lab_ssh_key"
	typeInventory = "k3lab_inventory"
	typeTrigger   = "terraform_data"
)

// adopted is the resource of VMs that k3lab did not make.
const adopted = "adopted"

// inventoryFile is the path of Ansible's inventory in a workspace.
const inventoryFile = "ansible/inventory/hosts.ini"

// naming turns Terraform's addresses into the names the settings use.
type naming struct {
	lab       *config.Lab
	endpoints map[string]string // identifier in providers.k3lab.tf → endpoint
}

func newNaming(lab *config.Lab) naming {
	n := naming{lab: lab, endpoints: map[string]string{}}
	for _, e := range lab.Proxmox.Endpoints {
		n.endpoints[identifier(lab, e.Name)] = e.Name
	}
	return n
}

// subject is what a Terraform resource stands for.
type subject struct {
	object   string // a machine, a hypervisor, an endpoint, "workspace", or the address itself
	resource string // what of it; empty for a machine
	machine  bool
	rank     int // the order in which subjects are shown
}

func (s subject) String() string {
	return strings.TrimSpace(s.object + " " + s.resource)
}

// subjectOf names the subject of a resource. What the user has added to the
// configuration keeps its address.
func (n naming) subjectOf(address, module, kind, name string, index any, values map[string]any) subject {
	key := fmt.Sprint(index)
	switch {
	case kind == typeVM && name == "template":
		return subject{object: key, resource: "template", rank: 2}
	case kind == typeVM && index != nil:
		return subject{object: key, machine: true, rank: 3}
	case kind == typeVM:
		if own, ok := values["name"].(string); ok && n.lab.Machine(own) != nil {
			return subject{object: own, machine: true, rank: 3}
		}
	case kind == typeImage:
		return subject{object: key, resource: "image", rank: 1}
	case kind == typeTrigger && name == "template":
		return subject{object: key, resource: "template source", rank: 2}
	case kind == typePool:
		if e := n.endpointOf(module); e != "" {
			return subject{object: e, resource: "pool", rank: 0}
		}
	case kind == typeKey:
		return subject{object: "workspace", resource: "ssh key", rank: 4}
	case kind == typeInventory:
		return subject{object: "workspace", resource: inventoryFile, rank: 4}
	}
	return subject{object: address, rank: 5}
}

// follows reports whether an attribute only follows from others of the subject.
func (s subject) follows(path string) bool {
	switch s.resource {
	case inventoryFile:
		return path == "content_sha256"
	case "ssh key":
		return strings.HasPrefix(path, "authorized_keys")
	}
	return false
}

func (n naming) subjectOfChange(rc *tfjson.ResourceChange) subject {
	values, _ := rc.Change.After.(map[string]any)
	if values == nil {
		values, _ = rc.Change.Before.(map[string]any)
	}
	return n.subjectOf(rc.Address, rc.ModuleAddress, rc.Type, rc.Name, rc.Index, values)
}

// address matches module.m.type.name["key"], each part but type and name optional.
var address = regexp.MustCompile(`^(?:(module\..+?)\.)?([a-z0-9_]+)\.([A-Za-z0-9_-]+)(?:\["?([^"\]]*)"?\])?$`)

// subjectAt names the subject of an address in a message.
func (n naming) subjectAt(addr string) subject {
	m := address.FindStringSubmatch(addr)
	if m == nil {
		return subject{object: addr, rank: 5}
	}
	var index any
	if m[4] != "" {
		index = m[4]
	}
	return n.subjectOf(addr, m[1], m[2], m[3], index, nil)
}

// endpointOf returns the endpoint a module call of providers.k3lab.tf serves,
// or "".
func (n naming) endpointOf(module string) string {
	id, ok := strings.CutPrefix(module, "module.endpoint_")
	if !ok {
		return ""
	}
	return n.endpoints[id]
}
