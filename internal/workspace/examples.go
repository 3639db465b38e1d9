package workspace

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/k3lab/k3lab/internal/fault"
)

// The one endpoint of a lab in a sandbox.
const (
	sandboxEndpoint = "sandbox"
	sandboxCA       = "terraform/ca/" + sandboxEndpoint + ".pem"
)

// Sandbox is what the settings must say to fit a running sandbox.
type Sandbox struct {
	URL         string
	CAPEM       []byte
	Token       string
	CIDR        netip.Prefix // zero: it has no network of its own
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

func examples() map[string]example {
	return map[string]example{
		"single": {hypervisors: 1, servers: 1},
		"small":  {hypervisors: 1, servers: 1, agents: 2},
		"ha":     {hypervisors: 3, servers: 3, agents: 2, vip: true},
		"metal":  {servers: 1, agents: 2, metal: true},
	}
}

// fill turns an example into settings: of a usual home network, or of a sandbox.
func (e example) fill(opts Options) (settings, error) {
	s := settings{
		LabName: opts.LabName, PublicKeys: lines(opts.PublicKeys), Pool: opts.LabName,
		Cores: 2, MemoryMiB: 4096, DiskGiB: 32, Bridge: "vmbr0",
	}
	cidr, gateway := netip.MustParsePrefix("192.168.10.0/24"), netip.MustParseAddr("192.168.10.1")
	if opts.Sandbox != nil && opts.Sandbox.CIDR.IsValid() {
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
		if opts.Sandbox != nil && len(opts.Sandbox.Hypervisors) == 0 {
			return s, fault.New(fault.Invalid, "sandbox", "k3lab sandbox status", "it has no hypervisor")
		}
		s.proxmox(e, opts.Sandbox)
	}
	s.machines(e, cidr)
	return s, nil
}

// lines are the keys in texts as ssh-keygen and authorized_keys have them.
func lines(texts []string) []string {
	var out []string
	for _, text := range texts {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				out = append(out, line)
			}
		}
	}
	return out
}

func (s *settings) proxmox(e example, sandbox *Sandbox) {
	s.Endpoints = []endpoint{{Name: "home", URL: "https://192.168.10.2:8006"}}
	known := []SandboxHypervisor{{Name: "pve1"}, {Name: "pve2"}, {Name: "pve3"}}
	if sandbox != nil {
		s.Endpoints = []endpoint{{Name: sandboxEndpoint, URL: sandbox.URL, CAFile: sandboxCA}}
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
