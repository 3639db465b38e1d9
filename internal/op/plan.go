package op

import (
	"context"

	"github.com/k3lab/k3lab/internal/step"
)

// Plan returns every change that Up would make. It changes nothing on Proxmox
// or the machines.
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
	return s.steps(s.watch(DefaultTimeout)).Plan(ctx, opts.Reporter)
}
