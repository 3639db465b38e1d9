package op

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/k3lab/k3lab/internal/cluster"
	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// policiesDir is where the policies lie in a workspace.
const policiesDir = "kubernetes/policies"

// policies is the step that keeps roles, network policies and what else
// kubernetes/policies holds in the cluster as the files say.
type policies struct {
	*session
	watch *watch // tells when the cluster is whole
}

func (p policies) Title() string { return "Policies" }

// Plan asks the API what applying the files would change. Where the cluster is
// not there to be asked, everything is deferred.
func (p policies) Plan(ctx context.Context, r report.Reporter) ([]step.Change, error) {
	if !p.lab.Manages(config.ManagePolicies) {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	manifests, err := cluster.ReadManifests(p.dir.Path(policiesDir))
	if errors.Is(err, fs.ErrNotExist) {
		r.Report(report.Event{Kind: report.Notice, Message: policiesDir + " is not in this workspace: roles and network policies are left alone"})
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	client, err := p.client(ctx)
	if err != nil {
		return []step.Change{{Layer: "platform", Object: policiesDir, Action: step.Update, Deferred: "the cluster does not answer yet"}}, nil //nolint:nilerr // the steps before this one are what makes it answer
	}
	found, unknown, err := client.PlanPolicies(ctx, manifests)
	if err != nil {
		return nil, err
	}
	for _, namespace := range unknown {
		r.Report(report.Event{Kind: report.Warning, Object: "namespace " + namespace,
			Message: "its label " + cluster.PolicyLabel + " names no folder of " + policiesDir + "/namespaces: it gets no network policy"})
	}
	var changes []step.Change
	for _, c := range found {
		changes = append(changes, step.Change{
			Layer: "platform", Object: policiesDir, Resource: c.Name, Action: c.Action, Before: c.Before, After: c.After,
		})
	}
	return changes, nil
}

// Apply waits until the cluster is whole, looks again, and makes of what it finds
// the changes that were planned; where they were deferred, all.
func (p policies) Apply(ctx context.Context, w step.Writer, changes []step.Change) error {
	if !p.watch.Verified() {
		if err := p.watch.await(ctx, w); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, p.watch.timeout)
	defer cancel()
	manifests, err := cluster.ReadManifests(p.dir.Path(policiesDir))
	if err != nil {
		return err
	}
	client, err := p.connect(ctx)
	if err != nil {
		return err
	}
	found, _, err := client.PlanPolicies(ctx, manifests)
	if err != nil {
		return err
	}
	all := slices.ContainsFunc(changes, func(c step.Change) bool { return c.Deferred != "" })
	found = slices.DeleteFunc(found, func(f cluster.PolicyChange) bool {
		return !all && !slices.ContainsFunc(changes, func(c step.Change) bool {
			// One that was to be created may be there by now: controllers make some themselves.
			return c.Resource == f.Name && (c.Action == step.Delete) == (f.Action == step.Delete)
		})
	})
	return client.ApplyPolicies(ctx, w, found)
}

// connect waits for the API: where K3s was restarted a moment ago, it may be
// between two servers.
func (s *session) connect(ctx context.Context) (*cluster.Client, error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		client, err := s.client(ctx)
		if err == nil {
			return client, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}

// client speaks to the API with an administrator's kubeconfig, as a server has it
// now, or as it was kept where no server can be reached.
func (s *session) client(ctx context.Context) (*cluster.Client, error) {
	kubeconfig, err := s.fetch(ctx)
	if err != nil {
		if kubeconfig = s.watch(0).kept(); kubeconfig == nil {
			return nil, err
		}
	}
	return cluster.Connect(ctx, kubeconfig, apiURLs(s.lab))
}
