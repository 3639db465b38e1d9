package workspace

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/k3lab/k3lab/internal/fault"
)

// Sandbox is what the settings must say to fit a running sandbox.
type Sandbox struct {
	URL         string
	CAPEM       []byte
	Token       string
	CIDR        netip.Prefix
	Gateway     netip.Addr
	Hypervisors []SandboxHypervisor
}

// SandboxHypervisor is one hypervisor of a sandbox.
type SandboxHypervisor struct {
	Name      string
	MemoryMiB int
}

// settings is what the templates of the settings files are filled with.
type settings struct {
	LabName                                       string
	PublicKeys                                    []string
	Cores, MemoryMiB, DiskGiB                     int
	Machines                                      []machine
	Bridge, CIDR, Gateway, DNS, VIP, AdminNetwork string
	PoolFrom, PoolTo                              string
	Endpoints                                     []endpoint
	Hypervisors                                   []hypervisor
	Pool                                          string
}

type machine struct {
	Name, Role, Hypervisor, IP string
	VMID                       int
}

type endpoint struct{ Name, URL, CAFile string }

type hypervisor struct {
	Name, Endpoint, Storage, ImageStorage string
	TemplateVMID, MemoryMiB               int
}

// example is the shape of a lab to start from.
type example struct {
	hypervisors, servers, agents int
	vip, metal                   bool
}

// Examples names the examples.
var Examples = []string{"single", "small", "ha", "metal"}

func exampleNamed(name string) (example, error) {
	switch name {
	case "single":
		return example{hypervisors: 1, servers: 1}, nil
	case "small":
		return example{hypervisors: 1, servers: 1, agents: 2}, nil
	case "ha":
		return example{hypervisors: 3, servers: 3, agents: 2, vip: true}, nil
	case "metal":
		return example{servers: 1, agents: 2, metal: true}, nil
	}
	return example{}, fault.New(fault.Invalid, name, "one of single, small, ha, metal", "there is no example of that name")
}

// fill turns an example into settings: of a usual home network, or of a sandbox.
func (e example) fill(opts Options) (settings, error) {
	s := settings{
		LabName: opts.LabName, PublicKeys: opts.PublicKeys, Pool: opts.LabName,
		Cores: 2, MemoryMiB: 4096, DiskGiB: 32, Bridge: "vmbr0",
	}
	cidr, gateway := netip.MustParsePrefix("192.168.10.0/24"), netip.MustParseAddr("192.168.10.1")
	if opts.Sandbox != nil {
		cidr, gateway = opts.Sandbox.CIDR, opts.Sandbox.Gateway
	}
	if cidr.Bits() > 24 || !cidr.Addr().Is4() {
		return s, fault.New(fault.Invalid, cidr.String(), "k3lab sandbox up --cidr with a /24", "the examples need 256 addresses")
	}
	s.CIDR, s.AdminNetwork, s.Gateway, s.DNS = cidr.String(), cidr.String(), gateway.String(), gateway.String()
	s.PoolFrom, s.PoolTo = address(cidr, 200), address(cidr, 219)
	if e.vip {
		s.VIP = address(cidr, 10)
	}
	if !e.metal {
		s.proxmox(e, opts.Sandbox)
	}
	s.machines(e, cidr)
	return s, nil
}

func (s *settings) proxmox(e example, sandbox *Sandbox) {
	s.Endpoints = []endpoint{{Name: "home", URL: "https://192.168.10.2:8006"}}
	known := []SandboxHypervisor{{Name: "pve1"}, {Name: "pve2"}, {Name: "pve3"}}
	if sandbox != nil {
		s.Endpoints = []endpoint{{Name: "sandbox", URL: sandbox.URL, CAFile: "terraform/ca/sandbox.pem"}}
		known = sandbox.Hypervisors
	}
	for i, h := range known[:min(e.hypervisors, len(known))] {
		s.Hypervisors = append(s.Hypervisors, hypervisor{
			Name: h.Name, Endpoint: s.Endpoints[0].Name, Storage: "local-lvm", ImageStorage: "local",
			TemplateVMID: 9001 + i, MemoryMiB: h.MemoryMiB,
		})
	}
}

func (s *settings) machines(e example, cidr netip.Prefix) {
	for i := range e.servers + e.agents {
		m := machine{Name: fmt.Sprintf("server-%d", i+1), Role: "server", VMID: 201 + i, IP: address(cidr, 11+i), Hypervisor: "none"}
		if n := i - e.servers; n >= 0 {
			m.Name, m.Role, m.VMID, m.IP = fmt.Sprintf("agent-%d", n+1), "agent", 211+n, address(cidr, 21+n)
		}
		if e.metal {
			m.VMID = 0
		} else {
			m.Hypervisor = s.Hypervisors[i%len(s.Hypervisors)].Name
		}
		s.Machines = append(s.Machines, m)
	}
}

// address is the nth address of a network, in its last byte.
func address(cidr netip.Prefix, n int) string {
	b := slices.Clone(cidr.Masked().Addr().AsSlice())
	b[len(b)-1] = byte(n)
	a, _ := netip.AddrFromSlice(b)
	return a.String()
}
