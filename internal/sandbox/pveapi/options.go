package pveapi

import (
	"crypto/tls"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/k3lab/k3lab/internal/fault"
)

// Options configure a Server. StateDir and Hypervisors are required.
type Options struct {
	// StateDir keeps state.json and the certificates; made when missing.
	StateDir string
	// Hypervisors are the nodes of the simulated cluster, in the order listed.
	Hypervisors []Hypervisor
	// ClusterName is what /cluster/status reports; default "sandbox".
	ClusterName string
	// Power and Disks run machines; both nil means NoMachines.
	Power Power
	Disks Disks
	// Token is the administrator's API token and may do everything.
	Token Token
	// Tokens are further API tokens with the privileges they list.
	Tokens []Token
	// Passwords let users log in for a ticket, "root@pam" → password.
	Passwords map[string]string
	// Clock is the time stamped on tasks and volumes; default time.Now.
	Clock func() time.Time
	// ImageBytes is the size reported for downloaded images; default 2 GiB.
	ImageBytes int64
	// ImageNote says in task logs and notes what a download really is.
	ImageNote string
	// LockTimeout is how long a task waits for another one on the same VM,
	// default one minute. (Proxmox waits ten seconds, but there a start does
	// not wait for the machine's init.)
	LockTimeout time.Duration
	// Log receives one line per request that failed; nil discards.
	Log func(format string, args ...any)
}

// Hypervisor is one node of the cluster.
type Hypervisor struct {
	Name      string
	Address   string // as /cluster/status reports it; default 127.0.0.1
	MemoryMiB int
	Cores     int
	// Storages default to DefaultStorages.
	Storages []Storage
	// Bridges the machines can be connected to; none given means any.
	Bridges []string
}

// Storage is a storage as one hypervisor sees it. Storages of the same name
// on several hypervisors are one definition, as in Proxmox's storage.cfg.
type Storage struct {
	Name      string
	Type      string   // dir, lvmthin, zfspool or nfs
	Content   []string // images, rootdir, iso, vztmpl, backup, snippets, import
	SizeBytes int64
	Shared    bool // one set of volumes for all hypervisors
}

// Token is an API token.
type Token struct {
	User   string // "root@pam"
	ID     string
	Secret string
	// Privileges the token has everywhere; ignored for Options.Token.
	Privileges []string
}

// Name is the token's identifier on the wire, "root@pam!k3lab".
func (t Token) Name() string { return t.User + "!" + t.ID }

// DefaultStorages are what an installation of Proxmox VE comes with, on LVM
// and on ZFS at once.
func DefaultStorages() []Storage {
	return []Storage{
		{Name: "local", Type: "dir", Content: []string{"iso", "vztmpl", "backup", "snippets", "import"}, SizeBytes: 100 << 30},
		{Name: "local-lvm", Type: "lvmthin", Content: []string{"images", "rootdir"}, SizeBytes: 800 << 30},
		{Name: "local-zfs", Type: "zfspool", Content: []string{"images", "rootdir"}, SizeBytes: 800 << 30},
	}
}

// withDefaults fills in what was left out and refuses what cannot work.
func (o Options) withDefaults() (Options, error) {
	bad := func(format string, args ...any) (Options, error) {
		return o, fault.New(fault.Invalid, "sandbox", "", format, args...)
	}
	if o.StateDir == "" {
		return bad("the Proxmox API simulator needs a state directory")
	}
	if len(o.Hypervisors) == 0 {
		return bad("the Proxmox API simulator needs at least one hypervisor")
	}
	if o.Token.User == "" || o.Token.ID == "" || o.Token.Secret == "" {
		return bad("the Proxmox API simulator needs an administrator's token")
	}
	if (o.Power == nil) != (o.Disks == nil) {
		return bad("power and disks of the machines come together")
	}
	if o.Power == nil {
		n := NoMachines()
		o.Power, o.Disks = n, n
	}
	o.Hypervisors = slices.Clone(o.Hypervisors)
	seen := map[string]bool{}
	for i := range o.Hypervisors {
		h := &o.Hypervisors[i]
		if h.Name == "" || seen[h.Name] {
			return bad("hypervisor name %q is empty or given twice", h.Name)
		}
		seen[h.Name] = true
		h.setDefaults()
	}
	o.setDefaults()
	return o, nil
}

func (o *Options) setDefaults() {
	if o.ClusterName == "" {
		o.ClusterName = "sandbox"
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.ImageBytes == 0 {
		o.ImageBytes = 2 << 30
	}
	if o.ImageNote == "" {
		o.ImageNote = "k3lab sandbox: nothing was downloaded; this is the sandbox's own root image"
	}
	if o.LockTimeout == 0 {
		o.LockTimeout = time.Minute
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
}

func (h *Hypervisor) setDefaults() {
	if h.Address == "" {
		h.Address = "127.0.0.1"
	}
	if h.MemoryMiB == 0 {
		h.MemoryMiB = 64 << 10
	}
	if h.Cores == 0 {
		h.Cores = 16
	}
	if len(h.Storages) == 0 {
		h.Storages = DefaultStorages()
	}
}

// hypervisor finds a node, or fails as the API does for a name it does not know.
func (s *Server) hypervisor(name string) (*Hypervisor, error) {
	for i := range s.opts.Hypervisors {
		if s.opts.Hypervisors[i].Name == name {
			return &s.opts.Hypervisors[i], nil
		}
	}
	return nil, failed("hostname lookup '%s' failed - failed to get address info for: %s: Name or service not known", name, name)
}

// storage finds a storage of this hypervisor.
func (h *Hypervisor) storage(name string) (*Storage, error) {
	for i := range h.Storages {
		if h.Storages[i].Name == name {
			return &h.Storages[i], nil
		}
	}
	return nil, failed("storage '%s' does not exist", name)
}

// holds says whether the storage takes that kind of content.
func (st *Storage) holds(content string) bool { return slices.Contains(st.Content, content) }

// files says whether volumes are files in a directory.
func (st *Storage) files() bool { return st.Type == "dir" || st.Type == "nfs" }

// CAFile is the PEM file that clients of the server under stateDir must trust.
func CAFile(stateDir string) string { return filepath.Join(stateDir, "ca.pem") }

// tlsListener wraps a listener with the server's certificate. HTTP/2 is not
// offered, because its frames carry no reason phrase.
func tlsListener(l net.Listener, c tls.Certificate) net.Listener {
	return tls.NewListener(l, &tls.Config{
		Certificates: []tls.Certificate{c},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"},
	})
}

// splitUser parts "user@realm!token" into user and token.
func splitUser(name string) (user, token string) {
	user, token, _ = strings.Cut(name, "!")
	return user, token
}
