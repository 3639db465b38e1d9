package apps

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	rel "helm.sh/helm/v4/pkg/release/v1"

	"github.com/k3lab/k3lab/internal/kube"
	"github.com/k3lab/k3lab/internal/report"
)

// State is one release as it is.
type State struct {
	App       string `json:"app"`
	Release   string `json:"release"`
	Namespace string `json:"namespace"`
	Chart     string `json:"chart,omitempty"` // name and version; empty for plain objects
	Revision  int    `json:"revision"`        // 0: not installed
	Status    string `json:"status"`          // of the record: deployed, failed, …
	Problem   string `json:"problem,omitempty"`
}

// States tells of all releases, those in the workspace and those only in the
// cluster, how they are. It changes nothing and compares nothing.
func (e *Engine) States(ctx context.Context) ([]State, error) {
	v, err := e.look(ctx)
	if err != nil {
		return nil, err
	}
	known := map[string]*release{}
	for _, r := range e.releases {
		known[key(r.namespace, r.name)] = r
	}
	var out []State
	for _, a := range e.apps {
		if a.Err != nil {
			out = append(out, State{App: a.Name, Status: "refused", Problem: a.Err.Error()})
		}
	}
	for k, r := range known {
		if r.app.Err == nil && v.records.last[k] == nil {
			out = append(out, State{App: r.app.Name, Release: r.name, Namespace: r.namespace, Status: "not installed", Problem: "it is not installed"})
		}
	}
	var ours []*rel.Release
	for _, k := range slices.Sorted(maps.Keys(v.records.last)) {
		if last := v.records.last[k]; last.Labels[appLabel] != "" {
			ours = append(ours, last)
		}
	}
	states, errs := make([]State, len(ours)), make([]error, len(ours))
	var work []func() error
	for i, last := range ours {
		r := known[key(last.Namespace, last.Name)]
		work = append(work, func() error { states[i], errs[i] = e.state(ctx, v, last, r); return errs[i] })
	}
	if err := kube.All(work...); err != nil {
		return nil, err
	}
	out = append(out, states...)
	slices.SortFunc(out, func(a, b State) int { return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Release, b.Release)) })
	return out, nil
}

// state is that of a recorded release, which may be of no app any more.
func (e *Engine) state(ctx context.Context, v *view, last *rel.Release, r *release) (State, error) {
	s := State{App: last.Labels[appLabel], Release: last.Name, Namespace: last.Namespace, Revision: last.Version, Status: last.Info.Status.String()}
	if c := last.Chart; c != nil && c.Metadata != nil && c.Metadata.Annotations[plainNote] == "" {
		s.Chart = c.Metadata.Name + " " + c.Metadata.Version
	}
	wanted := manifest(last)
	if r == nil {
		r = &release{app: &App{}, name: last.Name, namespace: last.Namespace}
		s.Problem = "it is not in the workspace"
	} else {
		wanted = append(wanted, r.probes()...)
	}
	ill, err := e.examineAll(ctx, r, v.Resources, wanted)
	if err != nil {
		return s, err
	}
	if len(ill) > 0 && s.Problem == "" {
		s.Problem = kube.Name(ill[0].object) + ": " + ill[0].why
	}
	if s.Problem == "" && s.Status != "deployed" {
		s.Problem = fmt.Sprintf("revision %d is %s", s.Revision, s.Status)
	}
	return s, nil
}

// Verify waits until what a plan found ailing is healthy.
func (e *Engine) Verify(ctx context.Context, rep report.Reporter, p *Plan) error {
	var work []func() error
	for _, r := range e.releases {
		if p.Ailing[r.app.Name] == "" {
			continue
		}
		work = append(work, func() error {
			v, err := e.look(ctx)
			if err != nil {
				return err
			}
			d, err := e.render(ctx, v, r)
			if err != nil {
				return err
			}
			if err := e.settle(ctx, rep, r, append(d.objects, r.probes()...)); err != nil {
				return fmt.Errorf("app %s: %w", r.app.Name, err)
			}
			return nil
		})
	}
	return kube.All(work...)
}
