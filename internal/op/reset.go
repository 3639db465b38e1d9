package op

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/k3lab/k3lab/internal/cluster"
	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/desired"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// forgetPatience is how long K3s may take to let a node go.
const forgetPatience = 2 * time.Minute

// ResetOptions are the options of Reset.
type ResetOptions struct {
	LabOptions
	Nodes []string // none: every node, and with them the cluster
	// Confirm is shown the lab's name and what will be removed.
	Confirm func(lab string, plan step.Plan) (bool, error)
}

// ResetResult is what Reset ends with.
type ResetResult struct {
	Changes  []step.Change `json:"changes"`
	Declined bool          `json:"declined,omitempty"`
}

// Reset takes K3s and what belongs to it off machines, which stay. Where some of a
// cluster's nodes are reset, the cluster forgets them and goes on; that is refused
// where the datastore would lose its quorum. Interrupted, it is run again.
func Reset(ctx context.Context, opts ResetOptions) (_ *ResetResult, err error) {
	s, err := open(opts.LabOptions)
	if err != nil {
		return nil, err
	}
	defer s.closeInto(&err)
	if err := s.checkNodes(); err != nil {
		return nil, err
	}
	nodes, err := s.nodes(opts.Nodes)
	if err != nil {
		return nil, err
	}
	if err := s.lock("reset"); err != nil {
		return nil, err
	}
	watch := s.watch(lookPatience)
	r := &reset{
		lab: s.lab, nodes: nodes, machines: s.fleet,
		look: func(ctx context.Context) *cluster.Health { return watch.observer().Look(ctx) },
		api:  func(ctx context.Context) (forgetting, error) { return s.client(ctx) },
		wait: func(ctx context.Context) (forgetting, error) { return s.connect(ctx) },
	}
	steps := step.Sequence{r, forgotten{r, s.dir.Kubeconfig()}}
	plan, err := steps.Plan(ctx, opts.Reporter)
	if err != nil {
		return nil, err
	}
	result := &ResetResult{Changes: plan.Changes()}
	if plan.Empty() {
		return result, nil
	}
	if ok, err := opts.Confirm(s.lab.Name, plan); err != nil || !ok {
		result.Declined = true
		return result, err
	}
	return result, steps.Apply(ctx, opts.Reporter, plan)
}

// forgetting is what a reset needs of the cluster's API.
type forgetting interface {
	Knows(ctx context.Context, node string) (bool, error)
	Forget(ctx context.Context, w step.Writer, node string) error
}

// reset is the step that takes K3s off machines.
type reset struct {
	lab      *config.Lab
	nodes    []*config.Machine
	machines machines
	look     func(ctx context.Context) *cluster.Health
	api      func(ctx context.Context) (forgetting, error)
	wait     func(ctx context.Context) (forgetting, error) // for the API, whose address moves with the server that had it
}

func (r *reset) Title() string { return "K3s off the machines" }

// whole reports whether the cluster ends with this.
func (r *reset) whole() bool { return len(r.nodes) == len(r.lab.Nodes()) }

// Plan asks the machines what they have of it, and whether the cluster can do
// without them.
func (r *reset) Plan(ctx context.Context, _ report.Reporter) ([]step.Change, error) {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	if err := r.spare(ctx); err != nil {
		return nil, err
	}
	found := make([][]step.Change, len(r.nodes))
	err := each(ctx, r.nodes, func(i int, m *config.Machine) error {
		if err := reach(ctx, r.machines, m.Name); err != nil {
			return err
		}
		changes, err := r.machines.Plan(ctx, m.Name, converger.Request{State: desired.Reset(r.lab, m)})
		found[i] = asChanges(m.Name, changes)
		return err
	})
	return slices.Concat(found...), err
}

// Apply works on all machines at once.
func (r *reset) Apply(ctx context.Context, w step.Writer, changes []step.Change) error {
	planned := byObject(changes)
	return each(ctx, r.nodes, func(_ int, m *config.Machine) error {
		if planned[m.Name] == nil {
			return nil
		}
		_, err := r.machines.Apply(ctx, w, m.Name, converger.Request{State: desired.Reset(r.lab, m), Only: only(planned[m.Name])})
		return err
	})
}

// spare refuses to take away servers without which the others cannot go on.
func (r *reset) spare(ctx context.Context) error {
	var going []string
	for _, m := range r.nodes {
		if m.Role == config.RoleServer {
			going = append(going, m.Name)
		}
	}
	if r.whole() || going == nil {
		return nil
	}
	h := r.look(ctx)
	staying := 0
	for i := range h.Members {
		m := &h.Members[i]
		if m.Datastore != nil && m.Datastore.Voter() && !slices.Contains(going, m.Name) {
			staying++
		}
	}
	if need := h.Servers/2 + 1; staying < need {
		return fault.New(fault.Unhealthy, strings.Join(going, ", "), "k3lab status; or reset the whole lab, without --node",
			"without it %d of %d servers vote, and the datastore needs %d", staying, h.Servers, need)
	}
	return nil
}

// forgotten is the step that has the cluster, or where it ends the workspace,
// forget the nodes that were reset.
type forgotten struct {
	*reset
	kubeconfig string
}

func (f forgotten) Title() string { return "Cluster" }

// Plan asks the API for what it holds of them.
func (f forgotten) Plan(ctx context.Context, _ report.Reporter) ([]step.Change, error) {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	if f.whole() {
		if _, err := os.Stat(f.kubeconfig); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return []step.Change{{Layer: "platform", Object: "this workspace", Resource: "file .k3lab/kubeconfig", Action: step.Delete}}, nil
	}
	api, err := f.api(ctx)
	if err != nil {
		return nil, fault.New(fault.Unhealthy, "api", "k3lab status; or reset the whole lab, without --node",
			"single nodes are reset only while the cluster can be told to forget them: %w", err)
	}
	var changes []step.Change
	for _, m := range f.nodes {
		known, err := api.Knows(ctx, m.Name)
		if err != nil {
			return nil, err
		}
		if known {
			changes = append(changes, step.Change{Layer: "platform", Object: m.Name, Resource: nodeID, Action: step.Delete})
		}
	}
	return changes, nil
}

// Apply has K3s forget one node after the other.
func (f forgotten) Apply(ctx context.Context, w step.Writer, changes []step.Change) error {
	ctx, cancel := context.WithTimeout(ctx, forgetPatience)
	defer cancel()
	if f.whole() {
		return os.Remove(f.kubeconfig)
	}
	api, err := f.wait(ctx)
	if err != nil {
		return err
	}
	for _, c := range changes {
		if err := api.Forget(ctx, w, c.Object); err != nil {
			return err
		}
	}
	return nil
}
