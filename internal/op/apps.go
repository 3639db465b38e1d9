package op

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/k3lab/k3lab/internal/apps"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/kube"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// appsLease keeps two operators apart who change the apps of one cluster.
const appsLease = "k3lab-apps"

// leaseLifetime is after which silence of its holder the lease may be taken.
const leaseLifetime = 15 * time.Second

// applications is the step that keeps the apps in the cluster as their folders say.
type applications struct {
	*session
	watch *watch   // tells when the cluster is whole
	names []string // of the apps it is limited to; none: all

	charts *apps.Charts
	engine *apps.Engine
	plan   *apps.Plan // nil where there is nothing to look at
}

func (p *applications) Title() string { return "Apps" }

// Plan asks the API what applying the apps would change. What is wrong with one of
// them does not hold up the others: Refused tells of it.
func (p *applications) Plan(ctx context.Context, r report.Reporter) ([]step.Change, error) {
	if !apps.Used(p.dir.Root()) {
		return nil, nil
	}
	limited, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	client, err := p.client(limited)
	if err != nil {
		return p.unasked()
	}
	if err := p.look(ctx, client.Client); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(p.plan.Ailing)) {
		r.Report(report.Event{Kind: report.Warning, Object: name, Message: "not healthy: " + p.plan.Ailing[name]})
	}
	return p.plan.Changes, nil
}

// unasked is the plan where no API can be asked: all apps that can be read.
func (p *applications) unasked() ([]step.Change, error) {
	list, err := apps.Read(p.dir.Root())
	if err != nil {
		return nil, err
	}
	p.plan = &apps.Plan{Refused: map[string]error{}}
	for _, a := range list {
		if a.Err != nil {
			p.plan.Refused[a.Name] = a.Err
			continue
		}
		p.plan.Changes = append(p.plan.Changes, step.Change{Layer: apps.Layer, Object: a.Name, Action: step.Update, Deferred: "the cluster does not answer yet"})
	}
	p.plan.Only(p.names)
	return p.plan.Changes, nil
}

// look plans with an engine of its own: the files are read anew each time.
func (p *applications) look(ctx context.Context, client *kube.Client) error {
	list, err := apps.Read(p.dir.Root())
	if err != nil {
		return err
	}
	if p.charts, err = p.newCharts(); err != nil {
		return err
	}
	p.engine = apps.New(ctx, client, p.dir.Root(), list, p.charts)
	if p.plan, err = p.engine.Plan(ctx); err != nil {
		return err
	}
	for _, name := range p.names {
		known := func(a *apps.App) bool { return a.Name == name }
		if !slices.ContainsFunc(list, known) && !slices.ContainsFunc(p.plan.Changes, func(c step.Change) bool { return c.Object == name }) {
			return fault.New(fault.Invalid, name, "k3lab apps list", "there is no app of that name in %s", apps.Dir)
		}
	}
	p.plan.Only(p.names)
	return nil
}

// Apply waits until the cluster is whole and makes the changes under the lease.
func (p *applications) Apply(ctx context.Context, w step.Writer, changes []step.Change) error {
	if !p.watch.Verified() {
		if err := p.watch.await(ctx, w); err != nil {
			return err
		}
	}
	limited, cancel := context.WithTimeout(ctx, p.watch.timeout)
	defer cancel()
	client, err := p.connect(limited)
	if err != nil {
		return err
	}
	return holding(appsLease).Hold(ctx, client.Client, func(ctx context.Context) error {
		if err := p.look(ctx, client.Client); err != nil {
			return err
		}
		now, err := known(changes, p.plan.Changes)
		if err != nil {
			return err
		}
		if err := p.lockCharts(now); err != nil {
			return err
		}
		return p.engine.Apply(ctx, w, now)
	})
}

// known are the changes to make: those that were shown, and of apps the cluster
// could not be asked about, what it says now. Nothing is lost that was not shown.
func known(shown, now []step.Change) ([]step.Change, error) {
	var out []step.Change
	for _, c := range shown {
		if c.Deferred == "" || c.Resource != "" {
			out = append(out, c)
			continue
		}
		for _, n := range now {
			switch {
			case n.Object != c.Object:
			case len(n.Destroys) > 0:
				return nil, fault.New(fault.Failed, "app "+n.Object, "k3lab plan, then again", "%s would be lost, which could not be shown before", strings.Join(n.Destroys, ", "))
			default:
				out = append(out, n)
			}
		}
	}
	return out, nil
}

// holding is the lease in the name of whoever works here.
func holding(name string) kube.Lease {
	host, err := os.Hostname()
	if err != nil {
		host = "a computer without a name"
	}
	return kube.Lease{Name: name, Holder: "k3lab on " + host, Lifetime: leaseLifetime}
}

// Verified reports whether looking has proven everything already.
func (p *applications) Verified() bool {
	return p.plan == nil || len(p.plan.Ailing) == 0 && len(p.plan.Refused) == 0
}

// Verify waits for apps that were not healthy when they were looked at, and fails
// because of those that were refused.
func (p *applications) Verify(ctx context.Context, r report.Reporter) error {
	var errs []error
	if p.engine != nil {
		errs = append(errs, p.engine.Verify(ctx, r, p.plan))
	}
	return errors.Join(append(errs, p.plan.Err())...)
}

// Refused is what is wrong with apps that a plan could not be made for.
func (p *applications) Refused() error {
	if p.plan == nil {
		return nil
	}
	return p.plan.Err()
}

// AppState is one release of an app as it is.
type AppState = apps.State

// AppsOptions are the options of the operations on apps alone.
type AppsOptions struct {
	LabOptions
	Names   []string // of the apps; none: all
	Confirm func(step.Plan) (bool, error)
}

// withApps opens the workspace for an operation on apps alone.
func withApps(opts AppsOptions, operation string, do func(s *session, p *applications) error) (err error) {
	s, err := open(opts.LabOptions)
	if err != nil {
		return err
	}
	defer s.closeInto(&err)
	if err := s.checkNodes(); err != nil {
		return err
	}
	if operation != "" {
		if err := s.lock(operation); err != nil {
			return err
		}
	}
	return do(s, &applications{session: s, watch: s.watch(DefaultTimeout), names: opts.Names})
}

// DiffApps returns what ApplyApps would change. What is wrong with some apps is the
// error, and the plan holds the changes of the others all the same.
func DiffApps(ctx context.Context, opts AppsOptions) (plan step.Plan, err error) {
	err = withApps(opts, "apps diff", func(_ *session, p *applications) error {
		if plan, err = (step.Sequence{p}).Plan(ctx, opts.Reporter); err != nil {
			plan = nil
			return err
		}
		return p.Refused()
	})
	return plan, err
}

// ApplyApps makes the apps what their folders say; declined tells that the plan was
// not confirmed.
func ApplyApps(ctx context.Context, opts AppsOptions) (changes int, declined bool, err error) {
	err = withApps(opts, "apps apply", func(_ *session, p *applications) error {
		steps := step.Sequence{p}
		plan, err := steps.Plan(ctx, opts.Reporter)
		if err != nil {
			return err
		}
		if changes = len(plan.Changes()); changes > 0 {
			if ok, err := opts.Confirm(plan); err != nil || !ok {
				declined = true
				return err
			}
		}
		return steps.Apply(ctx, opts.Reporter, plan)
	})
	return changes, declined, err
}

// ListApps tells how the apps are, those of the workspace and those that are only
// in the cluster. It needs no lock and changes nothing.
func ListApps(ctx context.Context, opts AppsOptions) (states []AppState, err error) {
	err = withApps(opts, "", func(s *session, _ *applications) error {
		states, err = s.appStates(ctx)
		return err
	})
	return states, err
}

// appStates is nothing where the workspace keeps no apps.
func (s *session) appStates(ctx context.Context) ([]AppState, error) {
	if !apps.Used(s.dir.Root()) {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	list, err := apps.Read(s.dir.Root())
	if err != nil {
		return nil, err
	}
	client, err := s.client(ctx)
	if err != nil {
		return nil, fmt.Errorf("apps: %w", err)
	}
	return apps.New(ctx, client.Client, s.dir.Root(), list, nil).States(ctx)
}
