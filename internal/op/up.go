package op

import (
	"context"
	"time"

	"github.com/k3lab/k3lab/internal/step"
)

// UpOptions are the options of Up.
type UpOptions struct {
	LabOptions
	Timeout time.Duration // for a machine to boot, and then for the cluster to be whole
	// Confirm is shown the plan, unless it is empty, and says whether to go on.
	Confirm func(step.Plan) (bool, error)
}

// UpResult is what Up ends with.
type UpResult struct {
	Workspace  string  `json:"workspace"`
	Kubeconfig string  `json:"kubeconfig"`
	Changes    int     `json:"changes"`
	Declined   bool    `json:"declined,omitempty"` // the plan was shown and not confirmed
	Status     *Status `json:"status,omitempty"`   // where the layer cluster was looked at
}

// bootGrace is how long after it answers a new machine may take to accept the key.
const bootGrace = 30 * time.Second

// Up makes the lab what its settings say. It may be interrupted at any point and
// run again.
func Up(ctx context.Context, opts UpOptions) (_ *UpResult, err error) {
	s, err := open(opts.LabOptions)
	if err != nil {
		return nil, err
	}
	defer s.closeInto(&err)
	s.patience = bootGrace
	if err := s.checkNodes(); err != nil {
		return nil, err
	}
	if err := s.checkToken(); err != nil {
		return nil, err
	}
	if err := s.lock("up"); err != nil {
		return nil, err
	}
	watch := s.watch(opts.Timeout)
	steps := s.steps(watch)
	plan, err := steps.Plan(ctx, opts.Reporter)
	if err != nil {
		return nil, err
	}
	result := &UpResult{Workspace: s.dir.Root(), Kubeconfig: s.dir.Kubeconfig(), Changes: len(plan.Changes())}
	if !plan.Empty() {
		if ok, err := opts.Confirm(plan); err != nil || !ok {
			result.Declined = true
			return result, err
		}
	}
	if err := steps.Apply(ctx, opts.Reporter, plan); err != nil {
		return nil, err
	}
	if watch.health != nil {
		result.Status = s.status(watch.health, s.k3sVersion(ctx))
	}
	return result, nil
}
