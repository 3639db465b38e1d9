package apps

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"helm.sh/helm/v4/pkg/action"
	helmkube "helm.sh/helm/v4/pkg/kube"
	rel "helm.sh/helm/v4/pkg/release/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/k3lab/k3lab/internal/kube"
)

// manager is the name in which fields of apps' objects are owned: the one of the
// helm command, so that helm upgrade by hand goes on with what k3lab has begun.
const manager = "helm"

// appLabel is on the records of releases that an app of a workspace has made.
const appLabel = "k3lab.io/app"

// keptRevisions is how many records of a release are kept.
const keptRevisions = 10

func init() { helmkube.ManagedFieldsManager = manager } //nolint:gochecknoinits // the SDK offers nothing but a variable

// getter gives Helm one API, through a gate.
type getter struct {
	config    *rest.Config
	namespace string
	cached    discovery.CachedDiscoveryInterface
}

func newGetter(config *rest.Config, namespace string) (*getter, error) {
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	return &getter{config, namespace, memory.NewMemCacheClient(d)}, nil
}

func (g *getter) ToRESTConfig() (*rest.Config, error) { return g.config, nil }

func (g *getter) ToDiscoveryClient() (discovery.CachedDiscoveryInterface, error) {
	return g.cached, nil
}

func (g *getter) ToRESTMapper() (meta.RESTMapper, error) {
	return restmapper.NewDeferredDiscoveryRESTMapper(g.cached), nil
}

func (g *getter) ToRawKubeConfigLoader() clientcmd.ClientConfig {
	return clientcmd.NewDefaultClientConfig(*clientcmdapi.NewConfig(), &clientcmd.ConfigOverrides{Context: clientcmdapi.Context{Namespace: g.namespace}})
}

// configure makes what Helm's actions on one namespace need. They reach the API
// only as long as ctx lives.
func (e *Engine) configure(ctx context.Context, namespace string) (*action.Configuration, error) {
	g, err := newGetter(gated(ctx, e.client.Config), namespace)
	if err != nil {
		return nil, err
	}
	c := action.NewConfiguration(action.ConfigurationSetLogger(slog.DiscardHandler))
	if err := c.Init(g, namespace, "secret"); err != nil {
		return nil, fmt.Errorf("helm: %w", err)
	}
	return c, nil
}

// put installs or upgrades a release and returns its record. Helm gets a context
// that does not end: it would leave work behind. The gate ends it.
func (e *Engine) put(ctx context.Context, r *release, recorded *rel.Release) error {
	c, err := e.configure(ctx, r.namespace)
	if err != nil {
		return err
	}
	chart, err := r.load()
	if err != nil {
		return err
	}
	labels := map[string]string{appLabel: r.app.Name}
	wait := []helmkube.WaitOption{helmkube.WithWaitContext(ctx)}
	if recorded == nil {
		i := action.NewInstall(c)
		i.ReleaseName, i.Namespace, i.Labels, i.SkipCRDs = r.name, r.namespace, labels, true
		i.ServerSideApply, i.ForceConflicts, i.DisableOpenAPIValidation = true, true, true
		i.WaitStrategy, i.WaitOptions, i.Timeout = helmkube.HookOnlyStrategy, wait, r.app.timeout()
		_, err = i.RunWithContext(context.WithoutCancel(ctx), chart, r.values)
		return err
	}
	u := action.NewUpgrade(c)
	u.Namespace, u.Labels, u.SkipCRDs, u.MaxHistory, u.ResetValues = r.namespace, labels, true, keptRevisions, true
	u.ServerSideApply, u.ForceConflicts, u.DisableOpenAPIValidation = "true", true, true
	u.WaitStrategy, u.WaitOptions, u.Timeout = helmkube.HookOnlyStrategy, wait, r.app.timeout()
	_, err = u.RunWithContext(context.WithoutCancel(ctx), r.name, chart, r.values)
	return err
}

// rollback goes back to a revision.
func (e *Engine) rollback(ctx context.Context, name, namespace string, revision int, limit time.Duration) error {
	c, err := e.configure(ctx, namespace)
	if err != nil {
		return err
	}
	b := action.NewRollback(c)
	b.Version, b.MaxHistory = revision, keptRevisions
	b.ServerSideApply, b.ForceConflicts = "true", true
	b.WaitStrategy, b.WaitOptions, b.Timeout = helmkube.HookOnlyStrategy, []helmkube.WaitOption{helmkube.WithWaitContext(ctx)}, limit
	return b.Run(name)
}

// uninstall removes a release and waits until its objects are gone.
func (e *Engine) uninstall(ctx context.Context, name, namespace string) error {
	c, err := e.configure(ctx, namespace)
	if err != nil {
		return err
	}
	u := action.NewUninstall(c)
	u.DeletionPropagation, u.Timeout = "foreground", defaultTimeout
	u.WaitStrategy, u.WaitOptions = helmkube.HookOnlyStrategy, []helmkube.WaitOption{helmkube.WithWaitContext(ctx)}
	removed, err := u.Run(name)
	if err != nil || removed == nil {
		return err
	}
	last, ok := removed.Release.(*rel.Release)
	if !ok {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	return e.awaitGone(limited, namespace, manifest(last))
}

// awaitGone waits until none of the objects is there any more. Helm's own wait
// takes one that is being deleted for one that stays.
func (e *Engine) awaitGone(ctx context.Context, namespace string, objects []*unstructured.Unstructured) error {
	resources, err := e.client.Discover(ctx)
	if err != nil {
		return err
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for _, o := range objects {
		in, err := resources.Of(o, namespace)
		if err != nil || kept(o) {
			continue // where its kind is gone, it is too
		}
		for {
			_, err := in.Get(ctx, o.GetName(), metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				break
			}
			if err != nil && !passing(err) {
				return fmt.Errorf("%s: %w", kube.Name(o), err)
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s is still there: %w", kube.Name(o), ctx.Err())
			case <-tick.C:
			}
		}
	}
	return nil
}
