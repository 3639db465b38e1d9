package op

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/k3lab/k3lab/internal/cluster"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/fleet"
	"github.com/k3lab/k3lab/internal/infra"
	"github.com/k3lab/k3lab/internal/pve"
	"github.com/k3lab/k3lab/internal/remote"
)

// keepAlive is how often an idle link is tried; a busy machine may be slow to
// answer, and a link given up too soon interrupts what goes on over it.
const keepAlive = 20 * time.Second

// newFleet reaches machines by SSH with the workspace's key and pinned host keys.
func (s *session) newFleet() *fleet.Fleet {
	return fleet.New(fleet.Options{
		Dial: func(ctx context.Context, name string) (remote.Runner, error) { return s.dial(ctx, name, s.keyFile()) },
	})
}

// dial logs in to a machine with a private key.
func (s *session) dial(ctx context.Context, name, keyFile string) (remote.Runner, error) {
	m := s.lab.Machine(name)
	if m == nil {
		return nil, fault.New(fault.Invalid, name, "k3lab status", "there is no machine of that name")
	}
	return remote.Dial(ctx, remote.Options{
		Machine:    name,
		Address:    net.JoinHostPort(m.IP.String(), "22"),
		User:       s.lab.Access.User,
		KeyFile:    keyFile,
		KnownHosts: s.dir.KnownHosts(),
		AuthGrace:  s.patience,
		KeepAlive:  keepAlive,
	})
}

// providerVersion is the one version of the provider there is: it comes with
// the binary that runs, and infra sees to it that Terraform takes that one.
const providerVersion = "0.0.1"

// keyFile is the private key to log in with: the user's own where one is named,
// relative to the workspace or to the home directory with ~/.
func (s *session) keyFile() string {
	own := s.lab.Access.KeyFile
	if own == "" {
		return s.dir.SSHKey()
	}
	if rest, ok := strings.CutPrefix(own, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return s.dir.Path(own)
}

// infraOptions says how Terraform is run for this lab.
func (s *session) infraOptions() infra.Options {
	plugin, err := os.Executable()
	if err != nil {
		plugin = os.Args[0]
	}
	return infra.Options{
		Dir: s.dir.Root(), Lab: s.lab, Tokens: s.tokens(),
		Binary:   cmp.Or(s.opts.Terraform, s.computer.Terraform),
		CacheDir: s.dir.Cache(), PluginBinary: plugin, Version: providerVersion, Fallback: os.Getenv("K3LAB_TOFU"),
		Mirror:     s.computer.ProviderMirror,
		Recipients: s.secrets.Recipients(),
		VMs:        proxmox{s},
	}
}

// tokens are the API tokens of the endpoints that have one.
func (s *session) tokens() map[string]string {
	tokens := map[string]string{}
	for _, e := range s.lab.Proxmox.Endpoints {
		if v, err := s.secrets.Get("proxmox_api_tokens", e.Name); err == nil {
			tokens[e.Name] = v.Reveal()
		}
	}
	return tokens
}

// proxmox finds for infra what Terraform's state does not know of.
type proxmox struct{ s *session }

func (p proxmox) Find(ctx context.Context, endpoint string, vmid int) (infra.VM, bool, error) {
	client, err := p.client(endpoint)
	if err != nil {
		return infra.VM{}, false, err
	}
	vm, found, err := client.Find(ctx, vmid)
	return infra.VM{Name: vm.Name, Hypervisor: vm.Node, Pool: vm.Pool}, found, err
}

func (p proxmox) HasPool(ctx context.Context, endpoint, pool string) (bool, error) {
	client, err := p.client(endpoint)
	if err != nil {
		return false, err
	}
	return client.HasPool(ctx, pool)
}

func (p proxmox) client(endpoint string) (*pve.Client, error) {
	for _, e := range p.s.lab.Proxmox.Endpoints {
		if e.Name != endpoint {
			continue
		}
		ca := e.CAFile
		if ca != "" {
			ca = p.s.dir.Path(ca)
		}
		return pve.New(pve.Options{Endpoint: e.Name, URL: e.URL, Token: p.s.tokens()[e.Name], CAFile: ca})
	}
	return nil, fault.New(fault.Invalid, endpoint, "", "there is no endpoint of that name")
}

// onMachines is what cluster needs of the fleet.
type onMachines struct{ *fleet.Fleet }

// Unit asks systemd on the machine.
func (o onMachines) Unit(ctx context.Context, machine, unit string) (cluster.UnitState, error) {
	if err := reach(ctx, o.Fleet, machine); err != nil {
		return cluster.UnitState{}, err
	}
	out, err := o.Output(ctx, machine, "systemctl", "show", "--property=ActiveState,SubState,NRestarts", unit)
	if err != nil {
		return cluster.UnitState{}, err
	}
	var u cluster.UnitState
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "ActiveState":
			u.Active = value
		case "SubState":
			u.Sub = value
		case "NRestarts":
			if u.Restarts, err = strconv.Atoi(value); err != nil {
				return u, fmt.Errorf("%s: restarts of %s: %w", machine, unit, err)
			}
		}
	}
	return u, nil
}

var (
	_ machines         = (*fleet.Fleet)(nil)
	_ cluster.Machines = onMachines{}
)
