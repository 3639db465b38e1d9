package op

import (
	"context"
	"errors"

	"github.com/k3lab/k3lab/internal/step"
)

// Plan returns every change that Up would make. It changes nothing on Proxmox
// or the machines. Where apps are refused, that is the error, and the plan holds
// the changes of everything else all the same.
func Plan(ctx context.Context, opts LabOptions) (_ step.Plan, err error) {
	s, err := open(opts)
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
	if err := s.lock("plan"); err != nil {
		return nil, err
	}
	steps := s.steps(s.watch(DefaultTimeout))
	plan, err := steps.Plan(ctx, opts.Reporter)
	if err != nil {
		return nil, err
	}
	for _, st := range steps {
		if p, ok := st.(*applications); ok {
			err = errors.Join(err, p.Refused())
		}
	}
	return plan, err
}
