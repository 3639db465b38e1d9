package op

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/desired"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/fleet"
	"github.com/k3lab/k3lab/internal/remote"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/sshkey"
	"github.com/k3lab/k3lab/internal/step"
)

const (
	// planPatience is how long a plan tries to connect to a machine. One that is up
	// answers in milliseconds; one that is off costs an address resolution of three
	// seconds.
	planPatience = 4 * time.Second
	// lookPatience is how long reading the state of everything may take. It is for
	// machines that answer and hang.
	lookPatience = 20 * time.Second
)

// reach connects to a machine or gives up soon. What is then asked of it may
// take its time: a busy machine is slow, but it is there.
func reach(ctx context.Context, machines interface {
	Runner(ctx context.Context, machine string) (remote.Runner, error)
}, machine string) error {
	ctx, cancel := context.WithTimeout(ctx, planPatience)
	defer cancel()
	_, err := machines.Runner(ctx, machine)
	return err
}

// machines is what converging needs of the fleet.
type machines interface {
	// Runner connects, unless a connection is there, within ctx.
	Runner(ctx context.Context, machine string) (remote.Runner, error)
	Plan(ctx context.Context, machine string, req converger.Request) ([]converger.Change, error)
	Apply(ctx context.Context, w step.Writer, machine string, req converger.Request) ([]converger.Change, error)
	Facts(ctx context.Context, machine string, req converger.FactsRequest) (converger.Facts, error)
	Push(ctx context.Context, w step.Writer, machine string, s fleet.Supply) error
}

// converge brings every node's machine to its desired state and has K3s started
// on all of them as early as it can be.
type converge struct {
	lab        *config.Lab
	machines   machines
	supplies   *supplies
	keyFile    string                                          // to log in with; infra makes it
	authorized func() (sshkey.Keys, error)                     // who may log in
	healthy    func(ctx context.Context, machine string) error // waits until that member is whole again
	api        func(ctx context.Context) (remembering, error)  // of the cluster that is there
	timeout    time.Duration                                   // for a machine to boot

	notices notices

	mu   sync.Mutex
	seen map[string]converger.Facts // what plan has read
}

func (c *converge) Title() string { return "Machines and K3s" }

// Plan reads all machines at once. One that does not answer is deferred: it may
// be there only after the steps before are applied. A K3s binary that was given
// is verified in any case, so that a wrong one is refused before anything is made.
func (c *converge) Plan(ctx context.Context, r report.Reporter) ([]step.Change, error) {
	given := make(chan error, 1)
	go func() { given <- c.supplies.verifyGiven(ctx, c.lab) }()
	changes, err := c.read(ctx, r)
	if refused := <-given; refused != nil {
		return nil, refused
	}
	if b := c.beginning(); err == nil && b.member != "" && !b.encrypted && c.lab.Security.SecretsEncryption && c.lab.Manages(config.ManageK3s) {
		r.Report(report.Event{Kind: report.Warning, Message: "Secrets are not encrypted in the datastore: this cluster was begun " +
			"without, and K3s takes steps of yours to change that (see docs/security.md)"})
	}
	return changes, err
}

func (c *converge) read(ctx context.Context, r report.Reporter) ([]step.Change, error) {
	nodes := c.lab.Nodes()
	c.seen = map[string]converger.Facts{}
	if _, err := os.Stat(c.keyFile); errors.Is(err, fs.ErrNotExist) {
		return c.allDeferred("the key to log in with is made first"), nil
	}
	quiet := c.ask(ctx, nodes)
	err := each(ctx, nodes, func(i int, _ *config.Machine) error { return notAnswering(quiet[i]) })
	if err != nil {
		return nil, err
	}
	start := c.beginning()
	changes, all := make([][]step.Change, len(nodes)), make([][]converger.Change, len(nodes))
	err = each(ctx, nodes, func(i int, m *config.Machine) error {
		facts, known := c.seen[m.Name]
		reason := ""
		switch {
		case !known:
			reason = "the machine does not answer yet: " + short(quiet[i])
		case start.unknown != "" && m.Role == config.RoleServer && !hasDatastore(facts):
			reason = start.unknown
		}
		if reason != "" {
			changes[i] = []step.Change{deferred(m, reason)}
			return nil
		}
		state, err := c.desired(ctx, m, facts, start)
		if err != nil {
			return err
		}
		found, err := c.machines.Plan(ctx, m.Name, converger.Request{State: state})
		if err != nil {
			return err
		}
		lost, err := c.replaced(ctx, m, facts, start)
		if err != nil {
			return err
		}
		if lost != nil {
			changes[i] = append(changes[i], forgetsFirst(m))
		}
		changes[i], all[i] = append(changes[i], asChanges(m.Name, found)...), found
		return roomForImages(m, facts, state, found)
	})
	c.notices.plan(r, nodes, all)
	return slices.Concat(changes...), err
}

// ask asks machines for their facts, all at once, and returns the error of each.
func (c *converge) ask(ctx context.Context, nodes []*config.Machine) []error {
	errs := make([]error, len(nodes))
	_ = each(ctx, nodes, func(i int, m *config.Machine) error {
		errs[i] = c.askOne(ctx, m)
		return nil
	})
	return errs
}

func (c *converge) askOne(ctx context.Context, m *config.Machine) error {
	if err := reach(ctx, c.machines, m.Name); err != nil {
		return err
	}
	facts, err := c.machines.Facts(ctx, m.Name, c.factsWanted(m))
	if err == nil {
		c.remember(m.Name, facts)
	}
	return err
}

func (c *converge) allDeferred(reason string) []step.Change {
	var out []step.Change
	for _, m := range c.lab.Nodes() {
		out = append(out, deferred(m, reason))
	}
	return out
}

func deferred(m *config.Machine, reason string) step.Change {
	return step.Change{Layer: "platform", Object: m.Name, Action: step.Update, Deferred: reason}
}

// Apply works on all machines at once; each goes as far as it can on its own.
func (c *converge) Apply(ctx context.Context, w step.Writer, changes []step.Change) error {
	r := &rollout{converge: c, w: noticing{w, &c.notices}, planned: byObject(changes), facts: newBoard(c.lab.Servers()), ready: newSignal(), started: newSignal()}
	return each(ctx, c.lab.Nodes(), func(_ int, m *config.Machine) error { return r.machine(ctx, m) })
}

func (c *converge) remember(machine string, f converger.Facts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[machine] = f
}

// beginning says how the cluster begins, or how a server finds it.
type beginning struct {
	bootstrap string // the server that begins a new cluster; empty when there is one already
	member    string // a server that has a datastore; empty when none has
	running   bool   // K3s is up on some server
	encrypted bool   // the cluster has an encryption configuration
	unknown   string // why it is not known yet; empty when it is
}

// beginning decides from what was read. A new cluster is begun only when every
// server was asked and none has a datastore: a server that cannot be asked might
// hold the cluster that is already there.
func (c *converge) beginning() beginning {
	c.mu.Lock()
	defer c.mu.Unlock()
	return begin(c.lab.Servers(), c.seen)
}

func begin(servers []*config.Machine, seen map[string]converger.Facts) beginning {
	var b beginning
	var missing string
	for _, s := range servers {
		facts, known := seen[s.Name]
		switch {
		case !known:
			missing = s.Name
		case hasDatastore(facts):
			up := facts.Units[desired.ServerUnit].Active == "active"
			if b.member == "" || (up && !b.running) {
				b.member = s.Name
			}
			b.running = b.running || up
			b.encrypted = b.encrypted || facts.Paths[desired.EncryptionPath]
		}
	}
	switch {
	case b.member != "":
	case missing != "":
		b.unknown = missing + " does not answer, and it might hold the cluster that is already there"
	default:
		b.bootstrap = servers[0].Name
	}
	return b
}

func hasDatastore(f converger.Facts) bool { return f.Paths[desired.DatastorePath] }

// deviceOf is the network interface that holds an address, empty when none does.
func deviceOf(f converger.Facts, address netip.Addr) string {
	for _, name := range slices.Sorted(maps.Keys(f.Interfaces)) {
		for _, text := range f.Interfaces[name] {
			if p, err := netip.ParsePrefix(text); err == nil && p.Addr() == address {
				return name
			}
		}
	}
	return ""
}

func (c *converge) factsWanted(m *config.Machine) converger.FactsRequest {
	q := converger.FactsRequest{
		Paths: []string{desired.DatastorePath, desired.EncryptionPath, desired.NodePasswordPath}, Units: []string{desired.Unit(m)},
		Modules: []string{desired.WireguardModule},
	}
	if len(c.lab.K3s.Images) > 0 {
		q.DiskFree = []string{desired.ImagesDir}
	}
	return q
}

// desired is what the machine should look like.
func (c *converge) desired(ctx context.Context, m *config.Machine, facts converger.Facts, b beginning) (converger.State, error) {
	if facts.Arch != m.Arch {
		return converger.State{}, fault.New(fault.Invalid, m.Name, "set arch: "+facts.Arch+" in terraform/vars/nodes.yaml",
			"the machine's processor is %s, the settings say %s", facts.Arch, m.Arch)
	}
	var binary string // digest of K3s
	if c.lab.Manages(config.ManageK3s) {
		var err error
		if binary, err = c.supplies.digest(ctx, m.Arch); err != nil {
			return converger.State{}, err
		}
	}
	device := deviceOf(facts, m.IP)
	if device == "" {
		return converger.State{}, fault.New(fault.Invalid, m.Name, "look at the machine's network, or correct ip in terraform/vars/nodes.yaml",
			"none of the machine's network interfaces has its address %s", m.IP)
	}
	if c.lab.K3s.FlannelBackend == "wireguard-native" && c.lab.Manages(config.ManageK3s) && !facts.Modules[desired.WireguardModule] {
		return converger.State{}, fault.New(fault.Invalid, m.Name, "set k3s.flannel_backend: vxlan in ansible/group_vars/all.yaml, or give the machine a kernel that has it",
			"its kernel %s has no module wireguard, which k3s.flannel_backend: wireguard-native needs", facts.Kernel)
	}
	keys, err := c.authorized()
	if err != nil {
		return converger.State{}, fault.New(fault.Invalid, m.Name, "look at access in ansible/group_vars/all.yaml", "who may log in: %w", err)
	}
	settings, err := c.supplies.settings(ctx, c.lab, m.Arch)
	if err != nil {
		return converger.State{}, err
	}
	in := desired.Inputs{
		AuthorizedKeys: keys.Authorized,
		RetiredKeys:    keys.Retired,
		Secrets:        settings.Secrets,
		Files:          settings.Files,
		Images:         settings.Images,
		Token:          c.supplies.token,
		BinarySHA256:   binary,
		BinarySource:   fleet.Pushed(binary),
		Interface:      device,
		Bootstrap:      b.bootstrap == m.Name,
		// A cluster that is there stays as it began: its servers must agree, and
		// turning encryption off would make its Secrets unreadable.
		EncryptSecrets: b.encrypted || b.bootstrap != "" && c.lab.Security.SecretsEncryption,
	}
	if !in.Bootstrap {
		in.JoinURL = c.joinURL(m, b)
	}
	return desired.Node(c.lab, m, in)
}

// joinURL is a server that is there already: a member, else the one that begins. An
// agent is given one where the VIP is not there before the cluster is.
func (c *converge) joinURL(m *config.Machine, b beginning) string {
	for _, name := range []string{b.member, b.bootstrap} {
		if s := c.lab.Machine(name); s != nil && name != m.Name {
			return desired.ServerURL(s.IP)
		}
	}
	if m.Role == config.RoleAgent {
		return desired.ServerURL(c.lab.Servers()[0].IP)
	}
	return desired.APIURL(c.lab)
}

// notAnswering passes on every error but that a machine does not answer, which
// a plan shows as deferred.
func notAnswering(err error) error {
	if errors.Is(err, remote.ErrNoAnswer) {
		return nil
	}
	return err
}

func asChanges(machine string, found []converger.Change) []step.Change {
	var out []step.Change
	for _, f := range found {
		if f.Action == "" {
			continue // a notice
		}
		out = append(out, step.Change{
			Layer: "platform", Object: machine, Resource: f.Resource, Action: step.Action(f.Action),
			Detail: f.Detail, Before: f.Before, After: f.After,
		})
	}
	return out
}

// byObject are the changes of each object, in their order.
func byObject(changes []step.Change) map[string][]step.Change {
	out := map[string][]step.Change{}
	for _, c := range changes {
		out[c.Object] = append(out[c.Object], c)
	}
	return out
}

func short(err error) string {
	if err == nil {
		return ""
	}
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Err.Error()
	}
	return err.Error()
}

// each calls f for every machine at once, runs all to their end, and joins the
// errors, each of which names its machine, in the machines' order.
func each(ctx context.Context, list []*config.Machine, f func(int, *config.Machine) error) error {
	places := make([]int, len(list))
	for i := range places {
		places[i] = i
	}
	return fleet.Each(ctx, places, func(_ context.Context, i int) error {
		return fleet.Named(list[i].Name, f(i, list[i]))
	})
}
