package op

import (
	"context"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/remote"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// provision is infra's step with what else begins and ends with a machine.
type provision struct {
	step.Step
	s *session
}

// Plan also warns of what removing a machine leaves behind in the cluster.
func (p provision) Plan(ctx context.Context, r report.Reporter) ([]step.Change, error) {
	changes, err := p.Step.Plan(ctx, r)
	for _, c := range changes {
		m := p.s.lab.Machine(c.Object)
		if c.Action != step.Delete || m == nil || m.Role == config.RoleNone {
			continue
		}
		left := "its node stays in the cluster"
		if m.Role == config.RoleServer {
			left = "its node and its datastore member stay in the cluster, and the member counts against quorum"
		}
		r.Report(report.Event{Kind: report.Warning, Object: m.Name,
			Message: "will be removed; " + left + " (try: kubectl delete node " + m.Name + ", before)"})
	}
	return changes, err
}

// Apply also forgets the host key that was pinned for the address of a machine
// that is made anew.
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
