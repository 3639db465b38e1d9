package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// FieldManager is the name under which k3lab owns fields of objects in the API.
const FieldManager = "k3lab"

// setKinds are the kinds looked through for objects that were taken out of the
// policies, beside those the policies hold.
var setKinds = []schema.GroupKind{
	{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole"},
	{Group: "rbac.authorization.k8s.io", Kind: "ClusterRoleBinding"},
	{Group: "rbac.authorization.k8s.io", Kind: "Role"},
	{Group: "rbac.authorization.k8s.io", Kind: "RoleBinding"},
	{Group: "networking.k8s.io", Kind: "NetworkPolicy"},
	{Group: "admissionregistration.k8s.io", Kind: "ValidatingAdmissionPolicy"},
	{Group: "admissionregistration.k8s.io", Kind: "ValidatingAdmissionPolicyBinding"},
	{Kind: "ServiceAccount"},
	{Kind: "LimitRange"},
	{Kind: "ResourceQuota"},
}

// PolicyChange is one object that is not in the cluster as the policies say.
type PolicyChange struct {
	Name          string // Kind namespace/name
	Action        step.Action
	Before, After string // YAML; empty for secrets

	object *unstructured.Unstructured
	in     dynamic.ResourceInterface
}

// PlanPolicies compares the cluster with the policies, by a server-side apply
// that is not persisted, and changes nothing. Namespaces that ask for a policy
// there is no folder for are in unknown.
func (c *Client) PlanPolicies(ctx context.Context, m *Manifests) (changes []PolicyChange, unknown []string, err error) {
	p := planner{client: c}
	var asking map[string]string
	if err := all(func() error { return p.discover(ctx) },
		func() (err error) { asking, err = c.asking(ctx); return err }); err != nil {
		return nil, nil, err
	}
	objects, unknown := m.objects(asking)
	found := make([]*PolicyChange, len(objects))
	work := []func() error{func() (err error) { changes, err = p.leftover(ctx, objects); return err }}
	for i, o := range objects {
		in, err := p.resource(o)
		if err != nil {
			return nil, nil, err
		}
		work = append(work, func() (err error) { found[i], err = compare(ctx, o, in, objects); return err })
	}
	if err := all(work...); err != nil {
		return nil, nil, err
	}
	for i := len(found) - 1; i >= 0; i-- {
		if found[i] != nil {
			changes = slices.Insert(changes, 0, *found[i])
		}
	}
	return changes, unknown, nil
}

// ApplyPolicies makes those changes, in their order where it matters.
func (c *Client) ApplyPolicies(ctx context.Context, w step.Writer, changes []PolicyChange) error {
	for r := range 2 {
		var work []func() error
		for _, ch := range changes {
			if rank(ch.object) == r {
				work = append(work, func() error { return ch.make(ctx, w) })
			}
		}
		if err := all(work...); err != nil {
			return err
		}
	}
	return nil
}

func (ch *PolicyChange) make(ctx context.Context, w step.Writer) error {
	var err error
	if ch.Action == step.Delete {
		uid := ch.object.GetUID()
		err = ch.in.Delete(ctx, ch.object.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if apierrors.IsNotFound(err) {
			err = nil
		}
	} else {
		_, err = ch.in.Apply(ctx, ch.object.GetName(), ch.object, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	}
	if err != nil {
		return fmt.Errorf("%s: %w", ch.Name, err)
	}

	w.Report(report.Event{Kind: report.ChangeMade, Object: "policies", Message: string(ch.Action) + " " + ch.Name})
	return nil
}

// asking maps the namespaces that ask for policies to the value of their label.
func (c *Client) asking(ctx context.Context) (map[string]string, error) {
	list, err := c.core.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: PolicyLabel})
	if err != nil {
		return nil, fmt.Errorf("namespaces: %w", err)
	}
	out := map[string]string{}
	for _, n := range list.Items {
		if n.Status.Phase != corev1.NamespaceTerminating {
			out[n.Name] = n.Labels[PolicyLabel]
		}
	}
	return out, nil
}

// planner knows which resources this cluster has.
type planner struct {
	client *Client
	mapper meta.RESTMapper
}

func (p *planner) discover(ctx context.Context) error {
	d, err := discovery.NewDiscoveryClientForConfigAndClient(p.client.config, p.client.http)
	if err != nil {
		return fmt.Errorf("api resources: %w", err)
	}
	groups, err := restmapper.GetAPIGroupResources(d)
	if err != nil {
		return fmt.Errorf("api resources: %w", err)
	}
	p.mapper = restmapper.NewDiscoveryRESTMapper(groups)
	return ctx.Err()
}

// resource is where an object belongs. It mends the object's namespace as kubectl
// would: default where none is said, none where the kind has none.
func (p *planner) resource(o *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	kind := o.GroupVersionKind()
	mapping, err := p.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, fault.New(fault.Invalid, "kubernetes/policies", "take it out, or install first what knows it", "%s: this cluster has no %s: %w", objectName(o), kind, err)
	}
	in := p.client.dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		o.SetNamespace("")
		return in, nil
	}
	if o.GetNamespace() == "" {
		o.SetNamespace(metav1.NamespaceDefault)
	}
	return in.Namespace(o.GetNamespace()), nil
}

// compare returns what applying the object would change, or nil for nothing.
func compare(ctx context.Context, o *unstructured.Unstructured, in dynamic.ResourceInterface, all []*unstructured.Unstructured) (*PolicyChange, error) {
	ch := &PolicyChange{Name: objectName(o), Action: step.Update, object: o, in: in}
	there, err := in.Get(ctx, o.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		ch.Action, there, err = step.Create, &unstructured.Unstructured{Object: map[string]any{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ch.Name, err)
	}
	then, err := in.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: FieldManager, Force: true, DryRun: []string{metav1.DryRunAll}})
	switch {
	case apierrors.IsNotFound(err) && slices.ContainsFunc(all, func(n *unstructured.Unstructured) bool {
		return n.GetKind() == "Namespace" && n.GetName() == o.GetNamespace()
	}):
		return ch, nil // its namespace is made first
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsNotFound(err):
		return nil, fault.New(fault.Invalid, "kubernetes/policies", "kubectl apply --server-side --dry-run=server -k kubernetes/policies", "%s: %w", ch.Name, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", ch.Name, err)
	}
	before, after, err := texts(there, then)
	if err != nil || before == after {
		return nil, err
	}
	if o.GetKind() != "Secret" {
		ch.Before, ch.After = before, after
	}
	return ch, nil
}

// leftover is what carries the label of the policies, was put there by k3lab and
// is in the policies no more.
func (p *planner) leftover(ctx context.Context, wanted []*unstructured.Unstructured) ([]PolicyChange, error) {
	kinds, names := slices.Clone(setKinds), map[string]bool{}
	for _, o := range wanted {
		names[objectName(o)] = true
		if k := o.GroupVersionKind().GroupKind(); !slices.Contains(kinds, k) {
			kinds = append(kinds, k)
		}
	}
	found := make([][]PolicyChange, len(kinds))
	var work []func() error
	for i, kind := range kinds {
		mapping, err := p.mapper.RESTMapping(kind)
		if err != nil {
			continue // where there is no such kind, nothing of it is left
		}
		work = append(work, func() error {
			in := p.client.dynamic.Resource(mapping.Resource)
			list, err := in.List(ctx, metav1.ListOptions{LabelSelector: setLabel + "=policies"})
			if err != nil {
				return fmt.Errorf("%s: %w", mapping.Resource.Resource, err)
			}
			for _, o := range list.Items {
				if names[objectName(&o)] || !applied(&o) {
					continue
				}
				ch := PolicyChange{Name: objectName(&o), Action: step.Delete, object: &o, in: in}
				if o.GetNamespace() != "" {
					ch.in = in.Namespace(o.GetNamespace())
				}
				found[i] = append(found[i], ch)
			}
			return nil
		})
	}
	err := all(work...)
	out := slices.Concat(found...)
	slices.SortFunc(out, func(a, b PolicyChange) int { return strings.Compare(a.Name, b.Name) })
	return out, err
}

// applied reports whether k3lab has applied the object.
func applied(o *unstructured.Unstructured) bool {
	return slices.ContainsFunc(o.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool {
		return f.Manager == FieldManager && f.Operation == metav1.ManagedFieldsOperationApply
	})
}

// all runs the functions at once and returns their errors joined.
func all(work ...func() error) error {
	errs := make([]error, len(work))
	var wait sync.WaitGroup
	for i, f := range work {
		wait.Go(func() { errs[i] = f() })
	}
	wait.Wait()
	return errors.Join(errs...)
}
