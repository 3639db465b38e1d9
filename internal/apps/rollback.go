package apps

import (
	"context"
	"fmt"
	"slices"
	"strings"

	rel "helm.sh/helm/v4/pkg/release/v1"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// Rollback puts an app back to a revision of its chart or objects, 0 for the last
// good one before, waits until it is healthy and returns which it was. Data that
// is not in that revision is not deleted for it.
func (e *Engine) Rollback(ctx context.Context, w step.Writer, app string, revision int) (int, error) {
	i := slices.IndexFunc(e.releases, func(r *release) bool { return r.app.Name == app })
	if i < 0 {
		for _, a := range e.apps {
			if a.Name == app && a.Err != nil {
				return 0, a.Err
			}
		}
		return 0, fault.New(fault.Invalid, app, "k3lab apps list", "there is no app of that name")
	}
	r := e.releases[i]
	history, err := e.history(ctx, r.name, r.namespace)
	if err != nil {
		return 0, err
	}
	to, err := r.choose(history, revision)
	if err != nil {
		return 0, err
	}
	v, err := e.look(ctx)
	if err != nil {
		return 0, err
	}
	gone, err := e.gone(ctx, v, r, history[0], manifest(to))
	if err != nil {
		return 0, err
	}
	for _, c := range gone {
		if len(c.Destroys) > 0 {
			return 0, fault.New(fault.Failed, app, "annotate it with "+keepNote+"=keep first", "revision %d has not %s: it would be lost", to.Version, strings.Join(c.Destroys, ", "))
		}
	}
	if err := e.rollback(ctx, r.name, r.namespace, to.Version, r.app.timeout()); err != nil {
		return 0, fmt.Errorf("app %s: rollback to revision %d: %w", app, to.Version, err)
	}
	w.Report(report.Event{Kind: report.ChangeMade, Object: app, Message: fmt.Sprintf("back to revision %d", to.Version)})
	return to.Version, e.settle(ctx, w, r, manifest(to))
}

// choose is the revision of that number, or the last good one before the newest.
func (r *release) choose(history []*rel.Release, revision int) (*rel.Release, error) {
	var have []string
	for i, h := range history {
		if h.Version == revision || revision == 0 && i > 0 && good(h) {
			return h, nil
		}
		have = append(have, fmt.Sprint(h.Version))
	}
	what := fmt.Sprintf("there is no revision %d", revision)
	if revision == 0 {
		what = "no revision before the newest was good"
	}
	return nil, fault.New(fault.Failed, r.app.Name, "helm -n "+r.namespace+" history "+r.name, "%s; it has: %s", what, strings.Join(have, ", "))
}
