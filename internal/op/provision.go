package op

import (
	"context"

	"github.com/k3lab/k3lab/internal/remote"
	"github.com/k3lab/k3lab/internal/step"
)

// provision is infra's step with what else ends when a machine is made anew:
// the host key that was pinned for its address.
type provision struct {
	step.Step
	s *session
}

func (p provision) Apply(ctx context.Context, w step.Writer, changes []step.Change) error {
	for _, c := range changes {
		m := p.s.lab.Machine(c.Object)
		if m == nil || (c.Action != step.Create && c.Action != step.Replace) {
			continue
		}
		if _, err := remote.Forget(p.s.dir.KnownHosts(), m.IP.String()); err != nil {
			return err
		}
	}
	return p.Step.Apply(ctx, w, changes)
}
