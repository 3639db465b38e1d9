package apps

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/release/common"
	rel "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/kube"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// Apply makes the changes, which come from the engine's Plan, and no others: what an app needs
// first, and what does not need each other at once. An app that fails is put back
// as it was and keeps back only those that need it. When the context ends nothing
// is written any more; what was begun is gone on with next time.
func (e *Engine) Apply(ctx context.Context, w step.Writer, changes []step.Change) error {
	var errs []error
	for _, c := range changes {
		if name, ok := strings.CutPrefix(c.Resource, "release "); ok && c.Action == step.Delete {
			errs = append(errs, e.remove(ctx, w, c, name))
		}
	}
	outcomes := map[string]*outcome{}
	for _, r := range e.releases {
		outcomes[r.name] = &outcome{done: make(chan struct{})}
	}
	var work []func() error
	for _, r := range e.releases {
		work = append(work, func() error {
			mine := outcomes[r.name]
			defer close(mine.done)
			planned := of(changes, r.app.Name)
			if len(planned) == 0 {
				mine.held = r.app.Err != nil
				return nil
			}
			if n := r.lacks(outcomes); n != "" {
				mine.held = true
				w.Report(report.Event{Kind: report.Warning, Object: r.name, Message: "left as it is: it needs " + n})
				return nil // said already, of what it needs
			}
			if err := e.apply(ctx, w, r, planned); err != nil {
				mine.held = true
				return fmt.Errorf("app %s: %w", r.app.Name, err)
			}
			return nil
		})
	}
	return errors.Join(append(errs, kube.All(work...))...)
}

// outcome is what became of a release; held once done says that what needs it
// cannot go on.
type outcome struct {
	done chan struct{}
	held bool
}

// lacks waits for what a release needs and names what it does not get.
func (r *release) lacks(outcomes map[string]*outcome) string {
	if len(r.missing) > 0 {
		return r.missing[0]
	}
	for _, n := range r.needs {
		if <-outcomes[n].done; outcomes[n].held {
			return n
		}
	}
	return ""
}

// of are the changes of one app.
func of(changes []step.Change, app string) []step.Change {
	return slices.DeleteFunc(slices.Clone(changes), func(c step.Change) bool { return c.Object != app })
}

// remove uninstalls what is called namespace/name, unless more would be lost than
// was shown.
func (e *Engine) remove(ctx context.Context, w step.Writer, planned step.Change, at string) error {
	v, err := e.look(ctx)
	if err != nil {
		return err
	}
	namespace, name, _ := strings.Cut(at, "/")
	lost, err := e.losses(ctx, v, namespace, manifest(v.records.last[at]))
	if err != nil {
		return err
	}
	for _, l := range lost {
		if !slices.Contains(planned.Destroys, l) {
			return e.unplanned(planned.Object, l+" would be lost")
		}
	}
	if err := e.uninstall(ctx, name, namespace); err != nil {
		return fmt.Errorf("app %s: uninstall: %w", planned.Object, err)
	}
	w.Report(report.Event{Kind: report.ChangeMade, Object: planned.Object, Message: "delete release " + at})
	return nil
}

func (e *Engine) unplanned(app, what string) error {
	return fault.New(fault.Failed, app, "k3lab plan, then again", "the cluster is not as it was when the plan was shown: %s", what)
}

// seen reports whether a plan has shown all the changes. Where some of it could
// not be known, everything of that app may come, but no loss.
func (e *Engine) seen(planned, now []step.Change) error {
	open := slices.ContainsFunc(planned, func(c step.Change) bool { return c.Deferred != "" })
	for _, c := range now {
		if open && len(c.Destroys) == 0 {
			continue
		}
		if !slices.ContainsFunc(planned, func(p step.Change) bool {
			return p.Resource == c.Resource && (p.Action == step.Delete) == (c.Action == step.Delete)
		}) {
			return e.unplanned(c.Object, string(c.Action)+" "+c.Resource)
		}
	}
	return nil
}

// apply looks at one release anew, and installs or upgrades it where something
// differs.
func (e *Engine) apply(ctx context.Context, w step.Writer, r *release, planned []step.Change) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	began := time.Now()
	for prepared := false; ; {
		v, err := e.look(ctx)
		if err != nil {
			return err
		}
		d, err := e.render(ctx, v, r)
		if err != nil {
			return err
		}
		c := newComing()
		if !prepared {
			c = alone(r, d)
		}
		found, err := e.compare(ctx, v, r, d, c)
		if err == nil {
			err = e.seen(planned, found.changes)
		}
		if unsettledWebhook(err) && time.Since(began) < r.app.timeout() {
			// Whoever checks these objects may have come up a moment ago.
			select {
			case <-ctx.Done():
				return err
			case <-tick.C:
				continue
			}
		}
		if err != nil {
			return err
		}
		if !prepared {
			if err := e.prepare(ctx, w, v, r, d, found.changes); err != nil {
				return err
			}
			prepared = true
			continue // with the kinds there are now
		}
		return e.bring(ctx, w, v, r, d, found)
	}
}

// alone is what a release itself makes first.
func alone(r *release, d *rendering) *coming {
	c := newComing()
	c.add(r, d)
	return c
}

// bring has Helm make what differs, and waits until the release is healthy.
func (e *Engine) bring(ctx context.Context, w step.Writer, v *view, r *release, d *rendering, found comparison) error {
	if found.put {
		last, err := e.resume(ctx, r, v.records.last[key(r.namespace, r.name)])
		if err != nil {
			return err
		}
		if err := e.put(ctx, r, last); err != nil {
			return e.giveUp(ctx, w, r, r.hinted(err))
		}
		for _, c := range found.changes {
			w.Report(report.Event{Kind: report.ChangeMade, Object: r.app.Name, Message: string(c.Action) + " " + c.Resource})
		}
	}
	err := e.settle(ctx, w, r, append(d.objects, r.probes()...))
	if err != nil && found.put {
		return e.giveUp(ctx, w, r, err)
	}
	return err
}

// prepare makes what Helm expects or does not keep up to date: the namespace, and
// CRDs, which have to be known before anything of their kinds can be sent.
func (e *Engine) prepare(ctx context.Context, w step.Writer, v *view, r *release, d *rendering, changes []step.Change) error {
	first := append([]*unstructured.Unstructured{r.namespaceObject()}, d.crds...)
	for _, o := range d.objects {
		if isCRD(o) || o.GetKind() == "Namespace" {
			first = append(first, o)
		}
	}
	var made []*unstructured.Unstructured
	for _, o := range first {
		i := slices.IndexFunc(changes, func(c step.Change) bool { return c.Resource == kube.Name(o) && c.Action != step.Delete })
		if i < 0 {
			continue
		}
		in, err := v.Of(o, r.namespace)
		if err == nil {
			_, err = kube.Apply(ctx, in, o, managerOf(o), false)
		}
		if err != nil {
			return r.refused(o, err)
		}
		w.Report(report.Event{Kind: report.ChangeMade, Object: r.app.Name, Message: string(changes[i].Action) + " " + changes[i].Resource})
		made = append(made, o)
	}
	return e.settle(ctx, nil, r, made)
}

// resume makes a release ready for Helm to work on, which refuses one that was
// interrupted.
func (e *Engine) resume(ctx context.Context, r *release, last *rel.Release) (*rel.Release, error) {
	switch {
	case last == nil:
		return nil, nil
	case last.Info.Status == common.StatusUninstalling:
		return nil, e.uninstall(ctx, r.name, r.namespace)
	case last.Info.Status.IsPending():
		return last, e.fail(ctx, last, "interrupted")
	default:
		return last, nil
	}
}

// settle waits until objects of a release are healthy, and tells rep of it where
// somebody wants to know.
func (e *Engine) settle(ctx context.Context, rep report.Reporter, r *release, wanted []*unstructured.Unstructured) error {
	if rep == nil {
		rep = report.Discard
	}
	limited, cancel := context.WithTimeout(ctx, r.app.timeout())
	defer cancel()
	ill, err := e.await(limited, r, wanted, func(text string) {
		rep.Report(report.Event{Kind: report.ObjectState, Object: r.name, Message: text})
	})
	if err == nil {
		rep.Report(report.Event{Kind: report.ObjectState, Object: r.name, Message: "healthy", Done: true})
		return nil
	}
	return e.unhealthy(ctx, r, ill, err)
}

func (e *Engine) unhealthy(ctx context.Context, r *release, ill []ailing, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", r.name, ctx.Err())
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("it is not healthy after %s", r.app.timeout())
	}
	return fault.New(fault.Unhealthy, r.app.Dir, "kubectl -n "+r.namespace+" get events,pods", "%s: %w%s", r.name, err, e.explain(ctx, ill))
}
