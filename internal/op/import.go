package op

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/k3lab/k3lab/internal/cluster"
	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/desired"
	"github.com/k3lab/k3lab/internal/existing"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/fleet"
	"github.com/k3lab/k3lab/internal/release"
	"github.com/k3lab/k3lab/internal/remote"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/workspace"
)

// ImportOptions are the options of Import.
type ImportOptions struct {
	Dir     string // of the workspace; must not exist yet, or be empty
	LabName string // empty: the folder's
	Server  string // any one server of the cluster: [USER@]ADDRESS
	KeyFile string // private key to log in with; empty: those in ~/.ssh
	// AcceptHostKey is asked about a host key that is not known yet; nothing is
	// sent to a machine before.
	AcceptHostKey func(HostKey) (bool, error)
	Proxmox       ImportProxmox
	Reporter      *report.Hub
}

// HostKey is what a machine shows before anybody has accepted it.
type HostKey struct{ Machine, Address, Type, Fingerprint string }

// ImportResult is what Import ends with.
type ImportResult struct {
	Workspace string
	Summary   string // what was found, in one phrase
	Notices   []string
}

const (
	// importPatience is how long one machine may take to answer and be read.
	importPatience = 30 * time.Second
	sshPort        = "22"
)

// Import reads a cluster that is there and writes a workspace for it. Nothing is
// changed on any machine, and DIR is there whole or not at all.
func Import(ctx context.Context, opts ImportOptions) (_ *ImportResult, err error) {
	i, err := newImport(opts)
	if err != nil {
		return nil, err
	}
	draft, err := workspace.NewDraft(opts.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, draft.Discard()) }()
	i.dir = draft.Dir()
	defer i.close()
	if err := i.read(ctx); err != nil {
		return nil, err
	}
	if err := i.virtualMachines(ctx); err != nil {
		return nil, err
	}
	i.checkBinaries(ctx)
	in, err := i.settings()
	if err != nil {
		return nil, err
	}
	written, err := draft.Write(in)
	if err != nil {
		return nil, err
	}
	if err := i.finish(written); err != nil {
		return nil, err
	}
	if err := draft.Keep(); err != nil {
		return nil, err
	}
	servers := 0
	for _, n := range i.nodes {
		if n.Server {
			servers++
		}
	}
	result := &ImportResult{
		Summary: fmt.Sprintf("K3s %s, %s and %s", in.Version, count(servers, "server"), count(len(i.nodes)-servers, "agent")),
		Notices: append(i.notices, written.Notices...),
	}
	result.Workspace, err = filepath.Abs(opts.Dir)
	return result, err
}

// importing is one import on its way.
type importing struct {
	opts    ImportOptions
	user    string
	host    string // of the server that was named
	keyFile string // absolute
	dir     workspace.Dir
	nodes   []*found // servers, then agents, by name
	infra   *carried // nil: without Proxmox
	locked  release.Digests
	notices []string
	runners []remote.Runner
}

// found is a node of the cluster with the machine it is on.
type found struct {
	cluster.Known
	*existing.Machine
}

func newImport(opts ImportOptions) (*importing, error) {
	i := &importing{opts: opts, host: opts.Server}
	if name, host, ok := strings.Cut(opts.Server, "@"); ok {
		i.user, i.host = name, host
	} else if me, err := user.Current(); err == nil {
		i.user = me.Username
	}
	if i.host == "" || i.user == "" || strings.ContainsAny(opts.Server, " /") {
		return nil, fault.New(fault.Invalid, opts.Server, "--server root@192.168.10.11", "it is not [USER@]ADDRESS")
	}
	if _, port, err := net.SplitHostPort(i.host); err == nil && port != sshPort {
		return nil, fault.New(fault.Invalid, opts.Server, "have sshd listen on 22 too", "k3lab reaches machines on port 22 only")
	}
	i.host = strings.Trim(strings.TrimSuffix(i.host, ":"+sshPort), "[]")
	var err error
	i.keyFile, err = importKey(opts.KeyFile)
	return i, err
}

// importKey is the private key to log in with: the one named, else the first of
// those ssh itself would try.
func importKey(named string) (string, error) {
	const hint = "--ssh-key FILE, your private key for these machines; ssh-keygen makes one, ssh-copy-id puts it there"
	if named != "" {
		path, err := filepath.Abs(named)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return "", fault.New(fault.Invalid, named, hint, "%w", err)
		}
		if strings.HasSuffix(path, ".pub") {
			return "", fault.New(fault.Invalid, named, "--ssh-key "+strings.TrimSuffix(named, ".pub"), "this is the public half")
		}
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fault.New(fault.Invalid, "ssh key", hint, "%w", err)
	}
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		path := filepath.Join(home, ".ssh", name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fault.New(fault.Invalid, "ssh key", hint, "there is none in %s", filepath.Join(home, ".ssh"))
}

func (i *importing) close() {
	for _, r := range i.runners {
		r.Close()
	}
}

func (i *importing) notice(format string, args ...any) {
	i.notices = append(i.notices, fmt.Sprintf(format, args...))
}

// dial connects to a machine whose host key is known, or accepted now.
func (i *importing) dial(ctx context.Context, name, address, alias string) (remote.Runner, error) {
	ctx, cancel := context.WithTimeout(ctx, importPatience)
	defer cancel()
	o := remote.Options{
		Machine: name, Address: net.JoinHostPort(address, sshPort), User: i.user, KeyFile: i.keyFile,
		KnownHosts: i.dir.KnownHosts(), Strict: true, Alias: alias, Known: []string{"/etc/ssh/ssh_known_hosts"}, KeepAlive: keepAlive,
	}
	if home, err := os.UserHomeDir(); err == nil {
		o.Known = append(o.Known, filepath.Join(home, ".ssh", "known_hosts"))
	}
	c, err := remote.Dial(ctx, o)
	var unknown *remote.UnknownKeyError
	if errors.As(err, &unknown) {
		if err := i.accept(unknown); err != nil {
			return nil, err
		}
		c, err = remote.Dial(ctx, o)
	}
	if err != nil {
		// What is advised otherwise needs a workspace.
		var f *fault.Error
		if errors.As(err, &f) {
			f.Hint = fmt.Sprintf("ssh -i %s %s@%s, which must work without a password; --server and --ssh-key say who logs in with what", i.keyFile, i.user, address)
		}
		return nil, err
	}
	i.runners = append(i.runners, c)
	return c, nil
}

func (i *importing) accept(k *remote.UnknownKeyError) error {
	accepted, err := i.opts.AcceptHostKey(HostKey{k.Machine, k.Address, k.Type(), k.Fingerprint()})
	if err != nil {
		return err
	}
	if !accepted {
		return fault.New(fault.Unreachable, k.Machine, "look at it there with ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub, then log in once with ssh, or add --accept-host-keys",
			"its SSH host key is not known yet: %s %s at %s", k.Type(), k.Fingerprint(), k.Address)
	}
	return k.Pin(i.dir.KnownHosts())
}

// read reads the server that was named, then every machine of its cluster at the
// address of its node: that is where k3lab reaches it from now on.
func (i *importing) read(ctx context.Context) error {
	address, err := resolve(ctx, i.host)
	if err != nil {
		return err
	}
	i.say(i.host, "reading")
	first, err := i.dial(ctx, i.host, address, i.host)
	if err != nil {
		return err
	}
	named, err := existing.Read(ctx, i.host, first)
	if err != nil {
		return err
	}
	if named.Role != config.RoleServer {
		return fault.New(fault.Invalid, i.host, "--server with one of the servers: kubectl get nodes shows them", "it is an agent of its cluster")
	}
	if err := supported(i.host, named); err != nil {
		return err
	}
	known, err := i.known(ctx, named, address)
	if err != nil {
		return err
	}
	machines, err := i.machinesOf(ctx, known, named, address)
	if err != nil {
		return err
	}
	for n, k := range known {
		if err := i.node(k, machines[n]); err != nil {
			return err
		}
	}
	return nil
}

// machinesOf reads the machines of the nodes. They are connected to one after the
// other, because a person may be asked about each host key, and read at once. The
// one read already is taken as it is where its node has the same address.
func (i *importing) machinesOf(ctx context.Context, known []cluster.Known, read *existing.Machine, address string) ([]*existing.Machine, error) {
	machines := make([]*existing.Machine, len(known))
	runners := make([]remote.Runner, len(known))
	places := make([]int, len(known))
	for n, k := range known {
		places[n] = n
		if k.Address.String() == address { // it is reached at the node's address from now on
			machines[n] = read
			continue
		}
		var err error
		if runners[n], err = i.reach(ctx, k); err != nil {
			return nil, err
		}
	}
	return machines, fleet.Each(ctx, places, func(ctx context.Context, n int) error {
		if runners[n] == nil {
			return nil
		}
		m, err := existing.Read(ctx, known[n].Name, runners[n])
		machines[n] = m
		return err
	})
}

// known asks the cluster for its nodes: servers first, then by name.
func (i *importing) known(ctx context.Context, server *existing.Machine, address string) ([]cluster.Known, error) {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return nil, err
	}
	client, err := cluster.Connect(ctx, server.Kubeconfig, []string{desired.ServerURL(ip)})
	if err != nil {
		return nil, fault.New(fault.Unreachable, i.host, "open port 6443 for this computer; k3lab asks the API there", "api: %w", err)
	}
	known, err := client.Known(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(known, func(a, b cluster.Known) int {
		switch {
		case a.Server == b.Server:
			return strings.Compare(a.Name, b.Name)
		case a.Server:
			return -1
		}
		return 1
	})
	return known, nil
}

// reach connects to the machine of a node.
func (i *importing) reach(ctx context.Context, k cluster.Known) (remote.Runner, error) {
	if !k.Address.IsValid() || !k.Address.Is4() {
		return nil, fault.New(fault.Invalid, k.Name, "", "its node has no internal IPv4 address")
	}
	i.say(k.Name, "reading")
	r, err := i.dial(ctx, k.Name, k.Address.String(), k.Name)
	if err != nil {
		return nil, fmt.Errorf("%w; it is a node of this cluster (kubectl delete node %s, if it is gone for good)", err, k.Name)
	}
	return r, nil
}

// node takes a node and its machine in, if they are what k3lab can look after.
func (i *importing) node(k cluster.Known, m *existing.Machine) error {
	if (m.Role == config.RoleServer) != k.Server {
		return fault.New(fault.Invalid, k.Name, "kubectl get node "+k.Name+" --show-labels", "it runs K3s as %s, and its node says otherwise", m.Role)
	}
	if err := supported(k.Name, m); err != nil {
		return err
	}
	if !k.Ready {
		i.notice("%s: its node is not ready.", k.Name)
	}
	i.nodes = append(i.nodes, &found{k, m})
	return nil
}

// supported refuses clusters k3lab cannot look after.
func supported(name string, m *existing.Machine) error {
	if m.Role != config.RoleServer {
		return nil
	}
	switch m.Datastore {
	case existing.External:
		return fault.New(fault.Invalid, name, "", "its cluster is kept in %s, and k3lab looks after clusters on embedded etcd only", m.Datastore)
	case existing.SQLite:
		return fault.New(fault.Invalid, name, "K3s moves it by itself: add --cluster-init to ExecStart in its k3s.service, then systemctl daemon-reload && systemctl restart k3s",
			"its cluster is kept in %s, and k3lab looks after clusters on embedded etcd only", m.Datastore)
	}
	for _, key := range []string{"disable-etcd", "disable-apiserver", "disable-controller-manager", "disable-scheduler", "disable-agent"} {
		if m.Settings.Has(key) {
			return fault.New(fault.Invalid, name, "", "it runs with %s: k3lab knows servers that are whole", key)
		}
	}
	return nil
}

func (i *importing) say(machine, what string) {
	i.opts.Reporter.Report(report.Event{Kind: report.ObjectState, Object: machine, Message: what})
}

// resolve is the address of a name, as SSH would reach it.
func resolve(ctx context.Context, host string) (string, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.String(), nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
	if err != nil {
		return "", fault.New(fault.Unreachable, host, "give its address", "%w", err)
	}
	return ips[0].Unmap().String(), nil
}
