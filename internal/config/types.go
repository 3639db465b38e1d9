// Package config reads the settings files of a workspace into one typed Lab,
// validates it whole, and says where each value stands.
//
// The rest of the program gets plain types; positions are kept in a side index.
package config

import "net/netip"

// Lab is everything the settings files describe.
type Lab struct {
	Name     string     // lab_name in all.yaml
	Machines []*Machine // in the order of nodes.yaml, defaults merged in, disabled ones included
	Network  Network
	Proxmox  Proxmox
	Access   Access
	K3s      K3s
	OS       OS
	Firewall Firewall
	Security Security
	// ServersSpread says whether servers may share a hypervisor.
	ServersSpread Spread
	// Manage are the parts k3lab looks after; nil: all.
	Manage []Concern
	// Sources says where each setting stands; nil in a Lab that was not loaded.
	Sources *Sources
}

// Spread is how strictly servers are kept on hypervisors of their own.
type Spread string

// The spreads. Preferred is the default and only warns.
const (
	SpreadPreferred Spread = "preferred"
	SpreadRequired  Spread = "required"
)

// Role is what a machine is for.
type Role string

// The roles. RoleNone is a machine that is provisioned and then left alone.
const (
	RoleServer Role = "server"
	RoleAgent  Role = "agent"
	RoleNone   Role = "none"
)

// HypervisorNone marks a machine that no hypervisor of this lab carries: metal,
// or a VM made elsewhere.
const HypervisorNone = "none"

// Machine is one VM or one metal computer.
type Machine struct {
	Name         string
	Role         Role
	Enabled      bool
	Hypervisor   string // a key of Proxmox.Hypervisors, or HypervisorNone
	VMID         int
	IP           netip.Addr
	MAC          string // upper case, colons; empty: Proxmox chooses and it is kept
	Cores        int
	MemoryMiB    int
	BalloonMiB   int // 0: no ballooning
	DiskGiB      int
	Storage      string // of the boot disk; default: the hypervisor's
	TemplateVMID int    // 0: the template k3lab makes on that hypervisor
	ExtraDisks   []Disk
	Labels       map[string]string
	Taints       []string // key=value:Effect or key:Effect
	Arch         string   // amd64 or arm64
	VLAN         int      // 0: the network's
	OnBoot       bool     // the VM starts with its hypervisor
	// Adopted marks a VM that k3lab did not make: only its cores, memory and
	// on_boot are changed, and it is never destroyed.
	Adopted bool
}

// Disk is an extra disk of a machine.
type Disk struct {
	SizeGiB    int
	Storage    string // default: the machine's
	Serial     string
	FileSystem string // ext4 or xfs; empty: left raw
	Mount      string // absolute path; empty: not mounted
}

// Network is network.yaml.
type Network struct {
	Bridge           string
	VLAN             int // 0: untagged
	CIDR             netip.Prefix
	Gateway          netip.Addr
	DNSServers       []netip.Addr
	SearchDomain     string
	NTPServers       []string
	VIP              netip.Addr // zero: none
	VIPName          string     // DNS name of the VIP; may be empty
	VIPProvider      VIPProvider
	VIPImage         string   // of kube-vip, with its version
	VRRPID           int      // of keepalived, 1-255; default 51
	TLSSANs          []string // further names and addresses of the API
	LoadBalancerPool []Range
	Reserved         []Range // addresses nothing of the lab may use
	AdminNetworks    []netip.Prefix
}

// VIPProvider is what keeps the VIP on a server that works.
type VIPProvider string

// The providers. Keepalived, beside K3s, is the default; kube-vip runs in it.
const (
	VIPKeepalived VIPProvider = "keepalived"
	VIPKubeVIP    VIPProvider = "kube-vip"
)

// Range is an inclusive range of addresses.
type Range struct {
	From, To netip.Addr
}

// Proxmox is proxmox.yaml.
type Proxmox struct {
	Endpoints   []Endpoint // in file order
	Hypervisors map[string]Hypervisor
	Pool        string
	Image       Image
}

// Endpoint is one Proxmox VE API: a cluster, or a hypervisor on its own.
type Endpoint struct {
	Name        string
	URL         string
	CAFile      string // relative to the workspace; empty: the system's roots
	Hypervisors []string
}

// Hypervisor is one Proxmox VE server, called node in its API.
type Hypervisor struct {
	Name         string
	Endpoint     string
	Storage      string // for disks
	ImageStorage string // for the downloaded image
	TemplateVMID int    // VM ID of the template
	UserTemplate bool   // the template is the user's own: not made, not touched
	MemoryMiB    int    // 0: not known
}

// Image is the cloud image the template is made from.
type Image struct {
	URL               string // a dated one, never "latest"
	Checksum          string
	ChecksumAlgorithm string // sha256 or sha512
	FileName          string
}

// Access is how the operator reaches the machines.
type Access struct {
	User       string   // login user with sudo, made by cloud-init; default k3lab
	PublicKeys []string // the user's own; they come first
	KeyFile    string   // an existing private key to log in with; empty: k3lab's own
	HardenSSHD bool     // default true
}

// K3s is the k3s block of all.yaml.
type K3s struct {
	Version string // v1.36.3+k3s1
	CNI     string // flannel or none
	// FlannelBackend carries pods' traffic between nodes: vxlan,
	// wireguard-native or host-gw; empty without flannel.
	FlannelBackend string
	PodCIDR        netip.Prefix
	ServiceCIDR    netip.Prefix
	ClusterDomain  string
	Disable        []string
	ServerConfig   map[string]any // merged into the config.yaml of servers
	AgentConfig    map[string]any // merged into the config.yaml of agents
	Registries     Registries
	// Images are archives of container images that every node has before K3s
	// starts: files, relative to the workspace, or ImagesAirgap.
	Images []string
}

// OS is the os block of all.yaml.
type OS struct {
	Timezone           string
	Packages           []string // besides those every node needs
	UnattendedUpgrades bool     // security updates, without reboots; default true
	JournaldMaxMiB     int      // of the journal on disk; default 500
	Banner             string   // shown before a login; empty: none
}
