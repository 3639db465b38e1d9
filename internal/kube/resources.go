package kube

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
)

// Resources are what one cluster has to offer, as it was at one moment.
type Resources struct {
	client *Client
	Mapper meta.RESTMapper
	Groups []*restmapper.APIGroupResources
}

// Discover asks the API what it has. A group whose own server does not answer is
// left out, as its resources are.
func (c *Client) Discover(ctx context.Context) (*Resources, error) {
	d, err := discovery.NewDiscoveryClientForConfigAndClient(c.Config, c.HTTP)
	if err != nil {
		return nil, fmt.Errorf("api resources: %w", err)
	}
	groups, err := restmapper.GetAPIGroupResourcesWithContext(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("api resources: %w", err)
	}
	return &Resources{client: c, Mapper: restmapper.NewDiscoveryRESTMapper(groups), Groups: groups}, nil
}

// Of is where an object belongs. It mends the object's namespace: the one given
// where none is said, none where the kind has none. A kind the cluster does not
// have is an error that meta.IsNoMatchError knows.
func (r *Resources) Of(o *unstructured.Unstructured, namespace string) (dynamic.ResourceInterface, error) {
	kind := o.GroupVersionKind()
	mapping, err := r.Mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, err
	}
	in := r.client.Dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		o.SetNamespace("")
		return in, nil
	}
	if o.GetNamespace() == "" {
		o.SetNamespace(namespace)
	}
	return in.Namespace(o.GetNamespace()), nil
}

// Apply is a server-side apply of the object in a manager's name, who becomes the
// owner of its fields whoever has them. A dry one is computed and not persisted.
func Apply(ctx context.Context, in dynamic.ResourceInterface, o *unstructured.Unstructured, manager string, dry bool) (*unstructured.Unstructured, error) {
	options := metav1.ApplyOptions{FieldManager: manager, Force: true}
	if dry {
		options.DryRun = []string{metav1.DryRunAll}
	}
	return in.Apply(ctx, o.GetName(), o, options)
}
