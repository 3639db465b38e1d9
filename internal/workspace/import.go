package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/secrets"
)

// Imported is what the settings of a lab that was there before must say.
type Imported struct {
	LabName       string
	User, KeyFile string // to log in with

	Version                             string
	CNI, FlannelBackend                 string // the second is empty without flannel
	PodCIDR, ServiceCIDR, ClusterDomain string
	Disable                             []string
	ServerConfig, AgentConfig           map[string]any
	SecretsEncryption                   bool
	Timezone                            string
	Bridge, CIDR, Gateway, VIP          string // all but CIDR may be empty
	DNSServers, TLSSANs                 []string
	Machines                            []ImportedMachine
	Endpoint                            *ImportedEndpoint // nil: no Proxmox
	Hypervisors                         []ImportedHypervisor
	Token                               secrets.Value // of the cluster
}

// ImportedMachine is one machine. Without a VMID it is metal, or as good as that.
type ImportedMachine struct {
	Name, Role, Hypervisor, IP, Arch   string
	VMID, Cores, MemoryMiB, BalloonMiB int
	Labels                             map[string]string
	Taints                             []string
	OnBoot                             bool // of a VM
}

// ImportedEndpoint is the Proxmox API that carries the machines.
type ImportedEndpoint struct {
	Name, URL string
	CAPEM     []byte // empty: the system's authorities
	Token     secrets.Value
}

// ImportedHypervisor carries some of the machines.
type ImportedHypervisor struct {
	Name, Storage string
	MemoryMiB     int
}

// Draft is a workspace in the making. It lies beside its place until it is whole,
// so an import that is interrupted leaves none.
type Draft struct {
	dir   Dir
	place string
}

// NewDraft begins a workspace for a directory that does not exist yet, or is
// empty.
func NewDraft(dir string) (*Draft, error) {
	place, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(place)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Invalid, dir, "name a directory that does not exist yet", "%w", err)
	}
	if len(entries) > 0 {
		return nil, fault.New(fault.Invalid, dir, "name a directory that does not exist yet", "it is there already and not empty")
	}
	if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
		return nil, fault.New(fault.Invalid, dir, "name a directory you may write to", "%w", err)
	}
	at, err := os.MkdirTemp(filepath.Dir(place), "."+filepath.Base(place)+".import-")
	if err != nil {
		return nil, fault.New(fault.Invalid, dir, "name a directory you may write to", "%w", err)
	}
	d := &Draft{Dir{at}, place}
	if err := os.MkdirAll(d.dir.Path(".k3lab"), 0o700); err != nil {
		return nil, errors.Join(err, d.Discard())
	}
	return d, nil
}

// Dir is the workspace in the making.
func (d *Draft) Dir() Dir { return d.dir }

// Keep puts the workspace in its place.
func (d *Draft) Keep() error {
	if err := os.Chmod(d.dir.root, 0o755); err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	if err := os.Rename(d.dir.root, d.place); err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	return nil
}

// Discard removes what was begun. After Keep it does nothing.
func (d *Draft) Discard() error { return os.RemoveAll(d.dir.root) }

// Write writes the whole workspace: settings, secrets, and all the files a new
// one has.
func (d *Draft) Write(in Imported) (*Result, error) {
	files, err := imported(in)
	if err != nil {
		return nil, err
	}
	store, err := secrets.Open(d.dir.Root())
	if err != nil {
		return nil, err
	}
	rule, text, err := store.CreationRule()
	if err != nil {
		return nil, err
	}
	files[rule] = text
	result := &Result{Files: slices.Sorted(maps.Keys(files))}
	if err := write(d.dir, files, result.Files); err != nil {
		return nil, err
	}
	if err := store.Set(in.Token, "k3s_token"); err != nil {
		return nil, err
	}
	if e := in.Endpoint; e != nil {
		if err := store.Set(e.Token, "proxmox_api_tokens", e.Name); err != nil {
			return nil, err
		}
	}
	result.newAgeKey(store)
	return result, result.initGit(d.dir)
}

// imported is every file of such a workspace, by its path.
func imported(in Imported) (map[string][]byte, error) {
	values := struct {
		Imported
		Endpoints   []endpoint
		Hypervisors []hypervisor
		Pool        string
	}{Imported: in, Pool: in.LabName}
	ca := ""
	if e := in.Endpoint; e != nil {
		if len(e.CAPEM) > 0 {
			ca = "terraform/ca/" + e.Name + ".pem"
		}
		values.Endpoints = []endpoint{{Name: e.Name, URL: e.URL, CAFile: ca}}
		for _, h := range in.Hypervisors {
			values.Hypervisors = append(values.Hypervisors, hypervisor{
				Name: h.Name, Endpoint: e.Name, Storage: h.Storage, ImageStorage: "local", MemoryMiB: h.MemoryMiB,
			})
		}
	}
	files, err := renderFiles(values, importedSettings, newSettings)
	if err != nil {
		return nil, err
	}
	if ca != "" {
		files[ca] = in.Endpoint.CAPEM
	}
	return files, valid(files)
}
