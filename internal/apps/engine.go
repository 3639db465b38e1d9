package apps

import (
	"context"
	"fmt"

	"helm.sh/helm/v4/pkg/chart/common"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/k3lab/k3lab/internal/kube"
)

// Engine keeps the apps of one workspace in one cluster.
type Engine struct {
	client   *kube.Client
	apps     []*App
	charts   *Charts
	releases []*release    // of the apps that can be read
	busy     chan struct{} // bounds the requests that are under way
}

// requestsAtOnce bounds the comparisons that are under way at one time.
const requestsAtOnce = 32

// New returns the engine for these apps of the workspace in root, which Read has
// returned. Charts are got and read, and what is wrong with one is put into its
// app's Err; the cluster is not asked yet. Without charts none is got, and the
// engine can only tell states and roll back.
func New(ctx context.Context, client *kube.Client, root string, list []*App, charts *Charts) *Engine {
	var work []func() error
	for _, a := range list {
		if charts != nil && a.Err == nil && a.Spec.Repository != "" {
			work = append(work, func() (err error) { a.got, a.Err = charts.path(ctx, a); return nil })
		}
	}
	_ = kube.All(work...) // each error is its app's
	return &Engine{client: client, apps: list, charts: charts, releases: releases(root, list), busy: make(chan struct{}, requestsAtOnce)}
}

// view is the cluster as it was at one moment.
type view struct {
	*kube.Resources
	caps    *common.Capabilities
	records *records
}

func (e *Engine) look(ctx context.Context) (*view, error) {
	v := &view{}
	var v1 *version.Info
	err := kube.All(
		func() (err error) { v.Resources, err = e.client.Discover(ctx); return err },
		func() (err error) { v.records, err = e.records(ctx); return err },
		func() (err error) { v1, err = e.client.Version(ctx); return err })
	if err != nil {
		return nil, err
	}
	v.caps = capabilities(common.KubeVersion{Version: v1.GitVersion, Major: v1.Major, Minor: v1.Minor}, v.Resources)
	return v, nil
}

// limited runs work, of which only so much is under way at once.
func (e *Engine) limited(ctx context.Context, work func() error) func() error {
	return func() error {
		select {
		case e.busy <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("apps: %w", ctx.Err())
		}
		defer func() { <-e.busy }()
		return work()
	}
}

// coming is what an operation makes before what needs it.
type coming struct {
	kinds      map[schema.GroupKind]string // → the app whose CRD it is
	namespaces []string
	unsettled  map[string]bool // releases that change
}

func newComing() *coming {
	return &coming{kinds: map[schema.GroupKind]string{}, unsettled: map[string]bool{}}
}

func (c *coming) add(r *release, d *rendering) {
	c.namespaces = append(c.namespaces, r.namespace)
	for _, o := range append(append([]*unstructured.Unstructured{}, d.crds...), d.objects...) {
		switch o.GetKind() {
		case "Namespace":
			c.namespaces = append(c.namespaces, o.GetName())
		case "CustomResourceDefinition":
			group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
			kind, _, _ := unstructured.NestedString(o.Object, "spec", "names", "kind")
			c.kinds[schema.GroupKind{Group: group, Kind: kind}] = r.app.Name
		}
	}
}

func isCRD(o *unstructured.Unstructured) bool {
	return o.GetKind() == "CustomResourceDefinition" && o.GroupVersionKind().Group == "apiextensions.k8s.io"
}
