package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/kube"
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
	Before, After string // YAML; the data of secrets masked

	object *unstructured.Unstructured
	in     dynamic.ResourceInterface
}

// PlanPolicies compares the cluster with the policies, by a server-side apply
// that is not persisted, and changes nothing. Namespaces that ask for a policy
// there is no folder for are in unknown.
func (c *Client) PlanPolicies(ctx context.Context, m *Manifests) (changes []PolicyChange, unknown []string, err error) {
	p := planner{client: c}
	var asking map[string]string
	if err := kube.All(func() error { return p.discover(ctx) },
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
	if err := kube.All(work...); err != nil {
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
			if kube.Rank(ch.object) == r {
				work = append(work, func() error { return ch.make(ctx, w) })
			}
		}
		if err := kube.All(work...); err != nil {
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
		_, err = kube.Apply(ctx, ch.in, ch.object, FieldManager, false)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", ch.Name, err)
	}

	w.Report(report.Event{Kind: report.ChangeMade, Object: "policies", Message: string(ch.Action) + " " + ch.Name})
	return nil
}

// asking maps the namespaces that ask for policies to the value of their label.
func (c *Client) asking(ctx context.Context) (map[string]string, error) {
	list, err := c.Core.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: PolicyLabel})
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
	*kube.Resources
}

func (p *planner) discover(ctx context.Context) (err error) {
	p.Resources, err = p.client.Discover(ctx)
	return err
}

// resource is where an object belongs, by default in namespace default.
func (p *planner) resource(o *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	in, err := p.Of(o, metav1.NamespaceDefault)
	if err != nil {
		return nil, fault.New(fault.Invalid, "kubernetes/policies", "take it out, or install first what knows it",
			"%s: this cluster has no %s: %w", kube.Name(o), o.GroupVersionKind(), err)
	}
	return in, nil
}

// compare returns what applying the object would change, or nil for nothing.
func compare(ctx context.Context, o *unstructured.Unstructured, in dynamic.ResourceInterface, all []*unstructured.Unstructured) (*PolicyChange, error) {
	name := kube.Name(o)
	var coming []string
	for _, n := range all {
		if n.GetKind() == "Namespace" {
			coming = append(coming, n.GetName())
		}
	}
	d, err := kube.Compare(ctx, in, o, FieldManager, coming)
	switch {
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsNotFound(err):
		return nil, fault.New(fault.Invalid, "kubernetes/policies", "kubectl apply --server-side --dry-run=server -k kubernetes/policies", "%s: %w", name, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	case d.None():
		return nil, nil
	}
	return &PolicyChange{Name: name, Action: d.Action, Before: d.Before, After: d.After, object: o, in: in}, nil
}

// leftover is what carries the label of the policies, was put there by k3lab and
// is in the policies no more.
func (p *planner) leftover(ctx context.Context, wanted []*unstructured.Unstructured) ([]PolicyChange, error) {
	kinds, names := slices.Clone(setKinds), map[string]bool{}
	for _, o := range wanted {
		names[kube.Name(o)] = true
		if k := o.GroupVersionKind().GroupKind(); !slices.Contains(kinds, k) {
			kinds = append(kinds, k)
		}
	}
	found := make([][]PolicyChange, len(kinds))
	var work []func() error
	for i, kind := range kinds {
		mapping, err := p.Mapper.RESTMapping(kind)
		if err != nil {
			continue // where there is no such kind, nothing of it is left
		}
		work = append(work, func() error {
			in := p.client.Dynamic.Resource(mapping.Resource)
			list, err := in.List(ctx, metav1.ListOptions{LabelSelector: setLabel + "=policies"})
			if err != nil {
				return fmt.Errorf("%s: %w", mapping.Resource.Resource, err)
			}
			for _, o := range list.Items {
				if names[kube.Name(&o)] || !applied(&o) {
					continue
				}
				ch := PolicyChange{Name: kube.Name(&o), Action: step.Delete, object: &o, in: in}
				if o.GetNamespace() != "" {
					ch.in = in.Namespace(o.GetNamespace())
				}
				found[i] = append(found[i], ch)
			}
			return nil
		})
	}
	err := kube.All(work...)
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
