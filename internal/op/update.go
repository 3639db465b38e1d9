package op

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/k3lab/k3lab/internal/cluster"
	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/fleet"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// DefaultDrainTimeout is how long pods have to leave a node.
const DefaultDrainTimeout = 5 * time.Minute

// UpdateOptions are the options of UpdateOS.
type UpdateOptions struct {
	LabOptions
	Nodes   []string // none: every node of the lab
	AtOnce  int      // agents that are updated at once; servers always go one by one
	Drain   cluster.DrainOptions
	Timeout time.Duration // for a machine to boot, and for its node to be whole again
	// Confirm is shown the plan and says whether to go on.
	Confirm func(step.Plan) (bool, error)
}

// UpdateResult is what UpdateOS ends with.
type UpdateResult struct {
	Changes  []step.Change `json:"changes"` // that were made
	Declined bool          `json:"declined,omitempty"`
}

// UpdateOS brings the packages of machines up to date and reboots those that need
// it, one after the other, each drained before and whole again after. The first
// failure ends it; run again it goes on from there.
func UpdateOS(ctx context.Context, opts UpdateOptions) (_ *UpdateResult, err error) {
	s, err := open(opts.LabOptions)
	if err != nil {
		return nil, err
	}
	defer s.closeInto(&err)
	s.patience = bootGrace
	if opts.AtOnce < 1 {
		return nil, fault.New(fault.Failed, "--at-once", "", "at least one agent must be updated at a time")
	}
	if err := s.checkNodes(); err != nil {
		return nil, err
	}
	nodes, err := s.nodes(opts.Nodes)
	if err != nil {
		return nil, err
	}
	if err := s.lock("os update"); err != nil {
		return nil, err
	}
	watch := s.watch(opts.Timeout)
	u := &update{
		nodes: nodes, machines: s.fleet, opts: opts, whole: watch.memberSince,
		look: func(ctx context.Context) *cluster.Health { return watch.observer().Look(ctx) },
		api: func(ctx context.Context) (nodeAPI, error) {
			ctx, cancel := context.WithTimeout(ctx, lookPatience)
			defer cancel()
			return s.connect(ctx)
		},
	}
	steps := step.Sequence{u}
	plan, err := steps.Plan(ctx, opts.Reporter)
	if err != nil {
		return nil, err
	}
	if !plan.Empty() {
		if ok, err := opts.Confirm(plan); err != nil || !ok {
			return &UpdateResult{Changes: []step.Change{}, Declined: true}, err
		}
	}
	if err := steps.Apply(ctx, opts.Reporter, plan); err != nil {
		return nil, err
	}
	return &UpdateResult{Changes: u.made}, nil
}

// updatedMachines is what updating needs of the fleet.
type updatedMachines interface {
	machines
	Output(ctx context.Context, machine string, args ...string) ([]byte, error)
}

// nodeAPI is what updating needs of the cluster's API.
type nodeAPI interface {
	Cordoned(ctx context.Context, node string) (cordoned bool, by string, err error)
	Elsewhere(ctx context.Context, node string) (bool, error)
	Cordon(ctx context.Context, w step.Writer, node, operation string) error
	Uncordon(ctx context.Context, w step.Writer, node string) error
	Drain(ctx context.Context, w step.Writer, node string, o cluster.DrainOptions) error
}

var (
	_ updatedMachines = (*fleet.Fleet)(nil)
	_ nodeAPI         = (*cluster.Client)(nil)
)

// update is the step that updates machines.
type update struct {
	nodes    []*config.Machine
	machines updatedMachines
	api      func(ctx context.Context) (nodeAPI, error) // as it can be reached now
	look     func(ctx context.Context) *cluster.Health
	whole    func(ctx context.Context, machine, boot string) error // waits until that member is
	opts     UpdateOptions

	mu   sync.Mutex
	made []step.Change
}

// What changes of an update are about, beside packages.
const (
	packagesID = "packages"
	machineID  = "machine"
	nodeID     = "node"
	updateName = "os-update" // as it cordons nodes
)

func (u *update) Title() string { return "Rolling update" }

// Plan asks every machine what is newer in its archives and whether it should be
// rebooted, and the cluster which nodes an update before has left cordoned. All of
// them must answer: one that is away may be what others must wait for.
func (u *update) Plan(ctx context.Context, r report.Reporter) ([]step.Change, error) {
	ctx, cancel := context.WithTimeout(ctx, u.opts.Timeout)
	defer cancel()
	api, err := u.api(ctx)
	if err != nil {
		return nil, fault.New(fault.Unhealthy, "api", "k3lab status", "machines are updated only while the cluster answers: %w", err)
	}
	found := make([][]step.Change, len(u.nodes))
	err = each(ctx, u.nodes, func(i int, m *config.Machine) error {
		r.Report(report.Event{Kind: report.ObjectState, Object: m.Name, Message: "asking its archives for newer packages"})
		var err error
		found[i], err = u.plan(ctx, api, m)
		return err
	})
	return slices.Concat(found...), err
}

func (u *update) plan(ctx context.Context, api nodeAPI, m *config.Machine) ([]step.Change, error) {
	if err := reach(ctx, u.machines, m.Name); err != nil {
		return nil, err
	}
	facts, err := u.machines.Facts(ctx, m.Name, converger.FactsRequest{Reboot: true})
	if err != nil {
		return nil, err
	}
	packages, err := u.machines.Plan(ctx, m.Name, newerPackages(m))
	if err != nil {
		return nil, err
	}
	_, by, err := api.Cordoned(ctx, m.Name)
	if err != nil {
		return nil, err
	}
	changes := asChanges(m.Name, packages)
	restart := step.Change{Layer: "platform", Object: m.Name, Resource: machineID, Action: step.Restart, Detail: facts.Reboot}
	switch {
	case facts.Reboot != "":
		changes = append(changes, restart)
	case len(changes) > 0:
		restart.Deferred = "it reboots if the packages ask for it"
		changes = append(changes, restart)
	}
	if by == updateName {
		changes = append(changes, step.Change{Layer: "platform", Object: m.Name, Resource: nodeID, Action: step.Update,
			Detail: "uncordon it, which an update before has not done"})
	}
	return changes, nil
}

func newerPackages(m *config.Machine) converger.Request {
	return converger.Request{State: converger.State{Machine: m.Name, Resources: []converger.Resource{{Upgrades: &converger.Upgrades{}}}}}
}
