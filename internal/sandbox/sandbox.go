package sandbox

import (
	"regexp"

	"github.com/k3lab/k3lab/internal/fault"
)

// Kind says what a VM of the sandbox is.
type Kind string

// The kinds of machines.
const (
	Nspawn Kind = "nspawn" // a systemd-nspawn machine; Linux, root
	None   Kind = "none"   // an entry of the API; no root needed
)

// Options say what sandbox Up starts.
type Options struct {
	Name        string // letters, digits and dashes; default "default"
	Machines    Kind   // default Nspawn
	Hypervisors int    // default 3
	// HypervisorNames name them; default pve1, pve2 and on. Where given they also
	// say how many there are.
	HypervisorNames []string
	// CIDR is the network of the machines, at most a /24 of IPv4; empty means
	// a free /24 of 198.18.0.0/15.
	CIDR string
	// Internet lets the machines reach what the computer reaches.
	Internet bool
	// ImagesDir holds container images, as tar files, that every machine has
	// before K3s starts; default the environment's K3LAB_SANDBOX_IMAGES.
	ImagesDir string
	// ServeCommand is the command, without the sandbox's name, that calls
	// Serve; default this program with "sandbox serve".
	ServeCommand []string
}

// Secret is a text that does not show itself when it is printed. As JSON it is
// plain: the file it goes to is for its owner only.
type Secret string

func (Secret) String() string { return "***" }

// GoString keeps %#v from printing the secret.
func (Secret) GoString() string { return "***" }

// Info describes a sandbox. It is what its sandbox.json holds.
type Info struct {
	Name        string       `json:"name"`
	Machines    Kind         `json:"machines"`
	Endpoint    string       `json:"endpoint"` // https://127.0.0.1:8006
	CAFile      string       `json:"ca_file"`  // PEM
	Token       Secret       `json:"token"`    // user@realm!id=secret
	Hypervisors []Hypervisor `json:"hypervisors"`
	// What follows is empty without real machines.
	CIDR      string    `json:"cidr,omitempty"`
	Gateway   string    `json:"gateway,omitempty"`
	Computer  string    `json:"computer,omitempty"` // this computer, as the machines see it
	Free      Addresses `json:"free,omitzero"`
	Internet  bool      `json:"internet"`
	ImagesDir string    `json:"images_dir,omitempty"`
	PID       int       `json:"pid,omitempty"` // of the API's daemon; 0 when it does not run
}

// Hypervisor is one simulated Proxmox VE server.
type Hypervisor struct {
	Name      string    `json:"name"`
	MemoryMiB int       `json:"memory_mib"`
	Cores     int       `json:"cores"`
	Storages  []Storage `json:"storages"`
}

// Storage is one storage of a hypervisor.
type Storage struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	Content []string `json:"content"`
}

// Addresses are a proposal of how to use the sandbox's network.
type Addresses struct {
	VIP              string   `json:"vip"`
	Machines         []string `json:"machines"`
	LoadBalancerPool string   `json:"load_balancer_pool"` // from-to
}

// State is a sandbox as it is found.
type State struct {
	Info
	Answers bool `json:"answers"` // the API answers
	VMs     []VM `json:"vms"`     // by VM ID; empty when the API does not answer
}

// VM is one VM of the sandbox.
type VM struct {
	VMID       int    `json:"vmid"`
	Name       string `json:"name"`
	Hypervisor string `json:"hypervisor"`
	Status     string `json:"status"` // running or stopped
	Template   bool   `json:"template"`
}

// validName is what a sandbox may be called: it becomes a directory.
var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)

// validHypervisor is what Proxmox VE calls its servers: a host name.
var validHypervisor = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// checkHypervisors refuses names that Proxmox VE would not have.
func (o Options) checkHypervisors() error {
	seen := map[string]bool{}
	for _, name := range o.HypervisorNames {
		switch {
		case !validHypervisor.MatchString(name):
			return fault.New(fault.Invalid, "sandbox "+o.Name, "", "hypervisor %q: must be letters, digits and dashes", name)
		case seen[name]:
			return fault.New(fault.Invalid, "sandbox "+o.Name, "", "hypervisor %s is given twice", name)
		}
		seen[name] = true
	}
	return nil
}

func checkName(name string) error {
	if !validName.MatchString(name) {
		return fault.New(fault.Invalid, "sandbox "+name, "", "the name must be lower-case letters, digits and dashes, at most 31")
	}
	return nil
}
