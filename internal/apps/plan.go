package apps

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/release/common"
	rel "helm.sh/helm/v4/pkg/release/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/kube"
	lock "github.com/k3lab/k3lab/internal/release"
	"github.com/k3lab/k3lab/internal/step"
)

// Layer is the layer of all changes of apps.
const Layer = "apps"

// namespaceManager owns what k3lab itself says of namespaces.
const namespaceManager = "k3lab"

// Plan is what Apply would change.
type Plan struct {
	Changes []step.Change
	// Refused are the apps nothing can be planned for, each with what is wrong. The
	// changes of the others are whole.
	Refused map[string]error
	// Ailing are apps of which nothing changes and something is not healthy, each
	// with what it is.
	Ailing map[string]string
}

// Plan returns what Apply would change. It changes nothing.
func (e *Engine) Plan(ctx context.Context) (*Plan, error) {
	v, err := e.look(ctx)
	if err != nil {
		return nil, err
	}
	c := newComing()
	rendered := make([]*rendering, len(e.releases))
	for i, r := range e.releases { // needs CPU, not the network: one after the other
		if rendered[i], err = e.render(ctx, v, r); err != nil {
			r.app.refuse(err)
			continue
		}
		c.add(r, rendered[i])
		if last := v.records.last[key(r.namespace, r.name)]; last == nil || last.Info.Status != common.StatusDeployed {
			c.unsettled[r.name] = true
		}
	}
	found := make([]comparison, len(e.releases))
	errs := make([]error, len(e.releases))
	var work []func() error
	for i, r := range e.releases {
		if rendered[i] != nil {
			work = append(work, func() error { found[i], errs[i] = e.compare(ctx, v, r, rendered[i], c); return nil })
		}
	}
	var left []step.Change
	work = append(work, func() (err error) { left, err = e.leavings(ctx, v); return err })
	if err := errors.Join(kube.All(work...), ctx.Err()); err != nil {
		return nil, err
	}
	e.deferUnchecked(found, errs)
	return e.planOf(left, found, errs), nil
}

func (e *Engine) planOf(left []step.Change, found []comparison, errs []error) *Plan {
	p := &Plan{Changes: left, Refused: map[string]error{}, Ailing: map[string]string{}}
	for i, r := range e.releases {
		r.app.refuse(errs[i])
	}
	news := e.charts.Found()
	for i, r := range e.releases {
		if r.app.Err != nil {
			continue
		}
		if sum := news[r.app.Spec.chartKey()]; sum != "" && !slices.ContainsFunc(p.Changes, func(c step.Change) bool { return c.Object == r.app.Name }) {
			ch := r.change("file "+lock.LockFile, step.Update)
			ch.Detail = "digest of chart " + r.app.Spec.Chart + " " + r.app.Spec.Version + " as it is now; from here on no other is taken"
			p.Changes = append(p.Changes, ch)
		}
		p.Changes = append(p.Changes, found[i].changes...)
		if ill := found[i].ill; len(ill) > 0 && len(found[i].changes) == 0 {
			p.Ailing[r.app.Name] = kube.Name(ill[0].object) + ": " + ill[0].why
		}
	}
	for _, a := range e.apps {
		if a.Err != nil {
			p.Refused[a.Name] = a.Err
		}
	}
	return p
}

// Only limits a plan to some apps; none: all.
func (p *Plan) Only(names []string) {
	if len(names) == 0 {
		return
	}
	p.Changes = slices.DeleteFunc(p.Changes, func(c step.Change) bool { return !slices.Contains(names, c.Object) })
	maps.DeleteFunc(p.Refused, func(name string, _ error) bool { return !slices.Contains(names, name) })
	maps.DeleteFunc(p.Ailing, func(name, _ string) bool { return !slices.Contains(names, name) })
}

// Err is what is wrong with the refused apps, by their names.
func (p *Plan) Err() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(p.Refused)) {
		errs = append(errs, fmt.Errorf("app %s: %w", name, p.Refused[name]))
	}
	return errors.Join(errs...)
}

// refuse notes the first thing that is wrong with an app.
func (a *App) refuse(err error) {
	if a.Err == nil {
		a.Err = err
	}
}

func (e *Engine) render(ctx context.Context, v *view, r *release) (*rendering, error) {
	revision := 1
	if last := v.records.last[key(r.namespace, r.name)]; last != nil {
		revision = last.Version + 1
	}
	return r.render(ctx, gated(ctx, e.client.Config), v.caps, revision)
}

// comparison is how one release differs from the cluster.
type comparison struct {
	changes []step.Change
	ill     []ailing // of what does not change
	put     bool     // something differs that Helm has to bring
}

// compare returns what applying a release would change.
func (e *Engine) compare(ctx context.Context, v *view, r *release, d *rendering, c *coming) (comparison, error) {
	last := v.records.last[key(r.namespace, r.name)]
	out := comparison{changes: r.recordChanges(last, d)}
	first := append([]*unstructured.Unstructured{r.namespaceObject()}, d.crds...)
	all := append(first, d.objects...)
	probes := r.probes()
	found, ill := make([]*step.Change, len(all)), make([]*ailing, len(all)+len(probes))
	var work []func() error
	for i, o := range all {
		work = append(work, e.limited(ctx, func() (err error) {
			found[i], ill[i], err = e.object(ctx, v, r, o, c, d.objects)
			return err
		}))
	}
	for i, o := range probes {
		work = append(work, e.limited(ctx, func() (err error) {
			ill[len(all)+i], err = e.examine(ctx, r, v.Resources, o, d.objects)
			return err
		}))
	}
	var gone []step.Change
	work = append(work, func() (err error) { gone, err = e.gone(ctx, v, r, last, d.objects); return err })
	if err := kube.All(work...); err != nil {
		return comparison{}, err
	}
	out.put = len(out.changes)+len(gone) > 0
	for i, ch := range found {
		if ch != nil {
			out.changes = append(out.changes, *ch)
			out.put = out.put || i >= len(first)
		}
	}
	for _, a := range ill {
		if a != nil {
			out.ill = append(out.ill, *a)
		}
	}
	out.changes = append(out.changes, gone...)
	return out, nil
}

func (r *release) change(resource string, action step.Action) step.Change {
	return step.Change{Layer: Layer, Object: r.app.Name, Resource: resource, Action: action}
}

// recordChanges are what differs in Helm's record of the release.
func (r *release) recordChanges(last *rel.Release, d *rendering) []step.Change {
	ch := r.change("release "+key(r.namespace, r.name), step.Update)
	switch {
	case last == nil:
		ch.Action, ch.Detail = step.Create, r.versionText(d.version)
	case last.Info.Status.IsPending() || last.Info.Status == common.StatusUninstalling:
		ch.Detail = fmt.Sprintf("go on: revision %d did not end (%s)", last.Version, last.Info.Status)
	case last.Info.Status != common.StatusDeployed:
		ch.Detail = fmt.Sprintf("again: revision %d %s", last.Version, last.Info.Status)
	case last.Chart.Metadata.Version != d.version:
		ch.Detail = "version " + last.Chart.Metadata.Version + " → " + d.version
	case last.Labels[appLabel] != r.app.Name:
		ch.Detail = "taken over: it was not made by k3lab"
	case hooksText(last.Hooks) != hooksText(d.hooks):
		ch.Detail, ch.Before, ch.After = "its hooks change", hooksText(last.Hooks), hooksText(d.hooks)
	default:
		return nil
	}
	return []step.Change{ch}
}

// versionText is empty for what has no version of its own.
func (r *release) versionText(version string) string {
	if r.plainObjects {
		return ""
	}
	return "version " + version
}

func (r *release) namespaceObject() *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": r.namespace}}}
	labels := map[string]string{}
	if p := r.app.Spec.PodSecurity; p != "" {
		labels["pod-security.kubernetes.io/enforce"] = p
	}
	if p := r.app.Spec.Provides; p != "" {
		labels["k3lab.io/provides"] = p
	}
	if len(labels) > 0 {
		o.SetLabels(labels)
	}
	return o
}

// object compares one object with the cluster: no change for no difference, and
// how it is then.
func (e *Engine) object(ctx context.Context, v *view, r *release, o *unstructured.Unstructured, c *coming, all []*unstructured.Unstructured) (*step.Change, *ailing, error) {
	in, err := v.Of(o, r.namespace)
	if meta.IsNoMatchError(err) {
		kind := o.GroupVersionKind()
		if app, ok := c.kinds[kind.GroupKind()]; ok {
			return r.deferred(o, "its kind is made by "+app+" first"), nil, nil
		}
		return nil, nil, fault.New(fault.Invalid, r.app.Dir, "add the app that brings it, and name it in needs of "+settingsFile,
			"%s: this cluster has no %s, and no app brings it", kube.Name(o), kind.GroupVersion().String()+" "+kind.Kind)
	}
	if err != nil {
		return nil, nil, err
	}
	own := managerOf(o)
	d, err := kube.Compare(ctx, in, o, own, c.namespaces)
	switch {
	case err != nil && unsettledWebhook(err) && slices.ContainsFunc(r.needs, func(n string) bool { return c.unsettled[n] }):
		return r.deferred(o, "what checks it is made first"), nil, nil
	case err != nil:
		return nil, nil, r.refused(o, err)
	case d.Action == step.Update && own == manager && !isCRD(o) && o.GetKind() != "Namespace" && !r.owns(d.Live):
		return nil, nil, fault.New(fault.Invalid, r.app.Dir, "give it another name, or remove what is there",
			"%s: it is in the cluster already and not of this app", kube.Name(o))
	case d.None():
		ill, err := e.judge(ctx, d.Live, all)
		return nil, ill, err
	}
	ch := r.change(kube.Name(o), d.Action)
	ch.Before, ch.After = d.Before, d.After
	return &ch, nil, nil
}

// deferred is a change that cannot be looked at before something else is there.
func (r *release) deferred(o *unstructured.Unstructured, why string) *step.Change {
	ch := r.change(kube.Name(o), step.Create)
	ch.Deferred = kube.Name(o) + ": " + why
	return &ch
}

// managerOf is in whose name an object is applied: what is not of the chart has no
// marks.
func managerOf(o *unstructured.Unstructured) string {
	if o.GetKind() == "Namespace" && o.GetAnnotations() == nil {
		return namespaceManager
	}
	return manager
}

// owns reports whether an object has the marks of the release.
func (r *release) owns(o *unstructured.Unstructured) bool {
	a := o.GetAnnotations()
	return o.GetLabels()["app.kubernetes.io/managed-by"] == "Helm" &&
		a["meta.helm.sh/release-name"] == r.name && a["meta.helm.sh/release-namespace"] == r.namespace
}

// refused says what the API has against an object.
func (r *release) refused(o *unstructured.Unstructured, err error) error {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return fmt.Errorf("%s: %w", kube.Name(o), err)
	}
	return r.hinted(fmt.Errorf("%s: refused by the API: %w", kube.Name(o), err))
}

// hinted says where to change what the API refuses.
func (r *release) hinted(err error) error {
	hint := "change it in " + r.app.Dir
	switch {
	case strings.Contains(err.Error(), "exceeded quota"):
		hint = "ask for less in " + r.app.Dir + ", or raise the ResourceQuota of namespace " + r.namespace
	case unsettledWebhook(err):
		hint = "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations"
	}
	return fault.New(fault.Invalid, r.app.Dir, hint, "%w", err)
}

// gone are the objects of the recorded release that it does not have any more.
func (e *Engine) gone(ctx context.Context, v *view, r *release, last *rel.Release, wanted []*unstructured.Unstructured) ([]step.Change, error) {
	id := func(o *unstructured.Unstructured) string {
		namespace := cmp.Or(o.GetNamespace(), r.namespace)
		return o.GroupVersionKind().GroupKind().String() + " " + key(namespace, o.GetName())
	}
	have := map[string]bool{}
	for _, o := range wanted {
		have[id(o)] = true
	}
	var out []step.Change
	for _, o := range manifest(last) {
		if have[id(o)] {
			continue
		}
		in, err := v.Of(o, r.namespace)
		if err != nil {
			continue // where there is no such kind, nothing of it is left
		}
		there, err := in.Get(ctx, o.GetName(), metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return nil, fmt.Errorf("%s: %w", kube.Name(o), err)
		case kept(there):
			continue
		}
		ch := r.change(kube.Name(o), step.Delete)
		if ch.Before, _, err = kube.Texts(there, there); err != nil {
			return nil, err
		}
		if ch.Destroys, err = e.lossesOf(ctx, there); err != nil {
			return nil, err
		}
		out = append(out, ch)
	}
	slices.SortFunc(out, func(a, b step.Change) int { return cmp.Compare(a.Resource, b.Resource) })
	return out, nil
}

// leavings are the releases of apps that are not in the workspace any more. What
// is in a release after another comes first.
func (e *Engine) leavings(ctx context.Context, v *view) ([]step.Change, error) {
	wanted, unknown := map[string]bool{}, map[string]bool{}
	for _, a := range e.apps {
		unknown[a.Name] = a.Err != nil // nobody knows what it would be
	}
	for _, r := range e.releases {
		wanted[key(r.namespace, r.name)] = true
	}
	var out []step.Change
	for k, last := range v.records.last {
		app := last.Labels[appLabel]
		if app == "" || wanted[k] || unknown[app] {
			continue
		}
		ch := step.Change{Layer: Layer, Object: app, Resource: "release " + k, Action: step.Delete, Detail: "it is not in the workspace"}
		var err error
		if ch.Destroys, err = e.losses(ctx, v, last.Namespace, manifest(last)); err != nil {
			return nil, err
		}
		out = append(out, ch)
	}
	slices.SortFunc(out, func(a, b step.Change) int { return cmp.Compare(b.Resource, a.Resource) })
	return out, nil
}
