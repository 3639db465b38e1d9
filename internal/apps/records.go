package apps

import (
	"context"
	"errors"
	"fmt"
	"slices"

	helmrelease "helm.sh/helm/v4/pkg/release"
	"helm.sh/helm/v4/pkg/release/common"
	rel "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage"
	"helm.sh/helm/v4/pkg/storage/driver"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
)

// bound lists secrets under a context, and only those of a selector: Helm's own
// storage knows neither.
type bound struct {
	typed.SecretInterface
	ctx      context.Context
	selector string
}

func (b bound) List(_ context.Context, o metav1.ListOptions) (*corev1.SecretList, error) {
	if b.selector != "" {
		o.LabelSelector += "," + b.selector
	}
	return b.SecretInterface.List(b.ctx, o)
}

func (b bound) Update(_ context.Context, s *corev1.Secret, o metav1.UpdateOptions) (*corev1.Secret, error) {
	return b.SecretInterface.Update(b.ctx, s, o)
}

// records are the newest record of each release in the cluster and, where that is
// another one, the one that is deployed, by namespace/name.
type records struct{ last, deployed map[string]*rel.Release }

func key(namespace, name string) string { return namespace + "/" + name }

// records reads them. Superseded revisions are not asked for.
func (e *Engine) records(ctx context.Context) (*records, error) {
	d := driver.NewSecrets(bound{e.client.Core.CoreV1().Secrets(metav1.NamespaceAll), ctx, "status!=superseded"})
	list, err := d.List(func(helmrelease.Releaser) bool { return true })
	if err != nil {
		return nil, fmt.Errorf("releases: %w", err)
	}
	out := &records{map[string]*rel.Release{}, map[string]*rel.Release{}}
	for _, item := range list {
		r, ok := item.(*rel.Release)
		if !ok {
			continue // a record of a Helm newer than this one
		}
		k := key(r.Namespace, r.Name)
		if was := out.last[k]; was == nil || was.Version < r.Version {
			out.last[k] = r
		}
		if was := out.deployed[k]; r.Info.Status == common.StatusDeployed && (was == nil || was.Version < r.Version) {
			out.deployed[k] = r
		}
	}
	return out, nil
}

// store is Helm's storage of one namespace.
func (e *Engine) store(ctx context.Context, namespace string) *storage.Storage {
	return storage.Init(driver.NewSecrets(bound{SecretInterface: e.client.Core.CoreV1().Secrets(namespace), ctx: ctx}))
}

// fail marks a record as failed: what was begun and not ended, or was not healthy.
func (e *Engine) fail(ctx context.Context, r *rel.Release, why string) error {
	r.Info.Status, r.Info.Description = common.StatusFailed, why
	if err := e.store(ctx, r.Namespace).Update(r); err != nil {
		return fmt.Errorf("%s: record of revision %d: %w", r.Name, r.Version, err)
	}
	return nil
}

// history returns the records of a release, the newest first.
func (e *Engine) history(ctx context.Context, name, namespace string) ([]*rel.Release, error) {
	list, err := e.store(ctx, namespace).History(name)
	if errors.Is(err, driver.ErrReleaseNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: history: %w", name, err)
	}
	var out []*rel.Release
	for _, item := range list {
		if r, ok := item.(*rel.Release); ok {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *rel.Release) int { return b.Version - a.Version })
	return out, nil
}

// good reports whether a revision has been healthy.
func good(r *rel.Release) bool {
	return r.Info.Status == common.StatusDeployed || r.Info.Status == common.StatusSuperseded
}
