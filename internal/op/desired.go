package op

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/desired"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/fleet"
	"github.com/k3lab/k3lab/internal/workspace"
)

// DesiredOptions are the options of Desired.
type DesiredOptions struct {
	LabOptions
	Nodes   []string // machines; none: every node of the lab
	Tags    []string // only resources with one of these; none: all
	Secrets bool     // show secrets instead of ***
	// Supplies puts what another driver has to copy to the machines on this
	// computer, into the workspace's cache.
	Supplies bool
}

// DesiredTags are all tags, in the order in which they are converged.
func DesiredTags() []string { return desired.Tags() }

// DesiredNode is what one machine should look like. All but Node is empty where
// there is an Error.
type DesiredNode struct {
	Node        string          `json:"node"`
	Error       string          `json:"error,omitempty"`
	Unreachable bool            `json:"unreachable,omitempty"` // the error is that it does not answer
	State       converger.State `json:"state"`
	// Unit runs K3s, and Running says that it does so now.
	Unit    string `json:"k3s_unit"`
	Running bool   `json:"k3s_running"`
	// BegunBy is the server that begins a new cluster, and is up before other
	// servers start; empty where there is a cluster already, and for agents.
	BegunBy   string         `json:"begun_by"`
	Converger *fleet.Supply  `json:"converger,omitempty"`
	Supplies  []fleet.Supply `json:"supplies,omitempty"`
}

// Desired computes what machines should look like, in the order asked for. It
// asks them what the settings cannot say and changes nothing on them. What
// concerns one machine alone is an error of that machine.
func Desired(ctx context.Context, opts DesiredOptions) (_ []DesiredNode, err error) {
	if err := checkTags(opts.Tags); err != nil {
		return nil, err
	}
	s, err := open(opts.LabOptions)
	if err != nil {
		return nil, err
	}
	defer s.closeInto(&err)
	if err := s.checkNodes(); err != nil {
		return nil, err
	}
	if err := s.checkToken(); err != nil {
		return nil, err
	}
	nodes, err := s.nodes(opts.Nodes)
	if err != nil {
		return nil, err
	}
	if opts.Supplies {
		// It is going to be applied: not while an operation does that.
		if err := workspace.CheckFree(s.dir); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	c := s.converge(lookPatience)
	c.seen = map[string]converger.Facts{}
	failed := c.askFor(ctx, nodes)
	out := make([]DesiredNode, len(nodes))
	err = each(ctx, nodes, func(i int, m *config.Machine) error {
		d := &out[i]
		d.Node = m.Name
		if known := d.failed(failed[m.Name]) || d.failed(c.node(ctx, m, d)); known || !opts.Supplies {
			return nil
		}
		return s.supply(ctx, m, d)
	})
	for i := range out {
		out[i].State.Resources = shown(out[i].State.Resources, opts)
	}
	return out, err
}

func checkTags(tags []string) error {
	for _, t := range tags {
		if !slices.Contains(desired.Tags(), t) {
			return fault.New(fault.Failed, "", "valid: "+strings.Join(desired.Tags(), ", "), "there is no tag %q", t)
		}
	}
	return nil
}

// nodes are the lab's nodes of these names, or all.
func (s *session) nodes(names []string) ([]*config.Machine, error) {
	if len(names) == 0 {
		return s.lab.Nodes(), nil
	}
	var out []*config.Machine
	var known []string
	for _, m := range s.lab.Nodes() {
		known = append(known, m.Name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fault.New(fault.Invalid, name, "one of "+strings.Join(known, ", "), "there is no enabled node of that name")
		}
		out = append(out, s.lab.Machine(name))
	}
	return out, nil
}

// askFor asks the machines for what their desired state depends on: where there
// is a server among them, that is every server. It returns the errors by machine.
func (c *converge) askFor(ctx context.Context, nodes []*config.Machine) map[string]error {
	asked := slices.Clone(nodes)
	if slices.ContainsFunc(nodes, func(m *config.Machine) bool {
		return m.Role == config.RoleServer || c.lab.Network.VIPProvider == config.VIPKubeVIP // it joins one of them
	}) {
		for _, m := range c.lab.Servers() {
			if !slices.Contains(asked, m) {
				asked = append(asked, m)
			}
		}
	}
	failed := map[string]error{}
	for i, err := range c.ask(ctx, asked) {
		failed[asked[i].Name] = err
	}
	return failed
}

// node fills in one machine.
func (c *converge) node(ctx context.Context, m *config.Machine, d *DesiredNode) error {
	facts, start := c.seen[m.Name], c.beginning()
	if m.Role == config.RoleServer && start.unknown != "" && !hasDatastore(facts) {
		return fmt.Errorf("how it finds its cluster is not known: %s", start.unknown)
	}
	state, err := c.desired(ctx, m, facts, start)
	if err != nil {
		return err
	}
	unit := desired.Unit(m)
	d.State, d.Unit = state, unit
	if m.Role == config.RoleServer {
		d.BegunBy = start.bootstrap
	}
	d.Running = facts.Units[unit].Active == "active"
	return nil
}

// failed notes what concerns this machine alone, and reports whether there was such.
func (d *DesiredNode) failed(err error) bool {
	if err == nil {
		return false
	}
	d.Error = strings.TrimPrefix(err.Error(), d.Node+": ")
	d.Unreachable = notAnswering(err) == nil
	return true
}

// supply puts the converger, the K3s binary and the images of the machine's architecture
// where another driver finds them.
func (s *session) supply(ctx context.Context, m *config.Machine, d *DesiredNode) error {
	b, err := fleet.Converger(m.Arch)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir.Cache(), "converger")
	path := filepath.Join(dir, b.SHA256)
	if info, err := os.Stat(path); errors.Is(err, os.ErrNotExist) || err == nil && info.Size() != int64(len(b.Content)) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("cache: %w", err)
		}
		if err := renameio.WriteFile(path, b.Content, 0o755); err != nil {
			return fmt.Errorf("cache: %w", err)
		}
	}
	d.Converger = &fleet.Supply{From: path, To: fleet.ConvergerPath(b.SHA256), SHA256: b.SHA256, Keep: 1}
	if !s.lab.Manages(config.ManageK3s) {
		return nil
	}
	k3s, err := s.supplies.binary(ctx, m.Arch)
	if err != nil {
		return err
	}
	d.Supplies = []fleet.Supply{fleet.Cached(k3s.Path, k3s.SHA256)}
	for _, r := range d.State.Resources {
		if r.Archive == nil {
			continue
		}
		a, err := s.supplies.archive(ctx, s.lab, m.Arch, r.Archive)
		if err != nil {
			return err
		}
		d.Supplies = append(d.Supplies, a)
	}
	return nil
}

// masked is shown in place of a secret.
const masked = "***\n"

func shown(resources []converger.Resource, opts DesiredOptions) []converger.Resource {
	var out []converger.Resource
	for _, r := range resources {
		if len(opts.Tags) > 0 && !slices.ContainsFunc(r.Tags, func(t string) bool { return slices.Contains(opts.Tags, t) }) {
			continue
		}
		if r.File != nil && r.File.Secret && !opts.Secrets {
			f := *r.File
			f.Content = masked
			r.File = &f
		}
		out = append(out, r)
	}
	return out
}
