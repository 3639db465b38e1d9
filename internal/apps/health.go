package apps

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/k3lab/k3lab/internal/kube"
)

// lookEvery is the time between two looks at an app that comes up.
const lookEvery = 500 * time.Millisecond

// ailing is an object that is not healthy, and why.
type ailing struct {
	object *unstructured.Unstructured
	why    string
	final  bool // it does not become healthy any more by itself
}

// await waits until all the objects are healthy. It gives up when the context
// ends, or when one has failed for good; the objects that are not healthy are
// returned then.
func (e *Engine) await(ctx context.Context, r *release, objects []*unstructured.Unstructured, say func(string)) ([]ailing, error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	said := ""
	var ill []ailing
	for {
		now, err := e.ailing(ctx, r, objects)
		switch {
		case err == nil && len(now) == 0:
			return nil, nil
		case err == nil:
			ill = now
			if text := kube.Name(now[0].object) + ": " + now[0].why; text != said {
				said = text
				say(text)
			}
			for _, a := range now {
				if a.final {
					return ill, errors.New("it has failed")
				}
			}
		case ctx.Err() == nil && !passing(err):
			return ill, err
		}
		select {
		case <-ctx.Done():
			return ill, ctx.Err()
		case <-tick.C:
		}
	}
}

// passing reports whether the API may answer a moment later: between two servers
// it does not.
func passing(err error) bool {
	var answered apierrors.APIStatus
	return !errors.As(err, &answered) || apierrors.IsServiceUnavailable(err) || apierrors.IsTooManyRequests(err) || apierrors.IsInternalError(err)
}

// ailing looks once.
func (e *Engine) ailing(ctx context.Context, r *release, wanted []*unstructured.Unstructured) ([]ailing, error) {
	resources, err := e.client.Discover(ctx)
	if err != nil {
		return nil, err
	}
	return e.examineAll(ctx, r, resources, wanted)
}

func (e *Engine) examineAll(ctx context.Context, r *release, resources *kube.Resources, wanted []*unstructured.Unstructured) ([]ailing, error) {
	found := make([]*ailing, len(wanted))
	var work []func() error
	for i, o := range wanted {
		work = append(work, e.limited(ctx, func() (err error) {
			found[i], err = e.examine(ctx, r, resources, o.DeepCopy(), wanted)
			return err
		}))
	}
	if err := kube.All(work...); err != nil {
		return nil, err
	}
	var out []ailing
	for _, a := range found {
		if a != nil {
			out = append(out, *a)
		}
	}
	return out, nil
}

func (e *Engine) examine(ctx context.Context, r *release, resources *kube.Resources, o *unstructured.Unstructured, all []*unstructured.Unstructured) (*ailing, error) {
	in, err := resources.Of(o, r.namespace)
	if err != nil {
		return &ailing{object: o, why: "its kind is not in the cluster"}, nil //nolint:nilerr // that is what is wrong with it
	}
	there, err := in.Get(ctx, o.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return &ailing{object: o, why: "it is not there"}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kube.Name(o), err)
	}
	return e.judge(ctx, there, all)
}

// judge tells what is wrong with an object as it is in the cluster, one of all of
// its release: nil for nothing.
func (e *Engine) judge(ctx context.Context, there *unstructured.Unstructured, all []*unstructured.Unstructured) (*ailing, error) {
	result, err := status.Compute(there)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", kube.Name(there), err)
	case result.Status == status.CurrentStatus && there.GetKind() == "Service" && there.GroupVersionKind().Group == "":
		return e.reached(ctx, there, all)
	case result.Status == status.CurrentStatus:
		return nil, nil
	default:
		return &ailing{object: there, why: result.Message, final: result.Status == status.FailedStatus}, nil
	}
}

// reached reports a service whose pods are of this release and none of which
// takes requests.
func (e *Engine) reached(ctx context.Context, o *unstructured.Unstructured, all []*unstructured.Unstructured) (*ailing, error) {
	var s corev1.Service
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", kube.Name(o), err)
	}
	if !selectsOf(&s, all) {
		return nil, nil
	}
	list, err := e.client.Core.DiscoveryV1().EndpointSlices(s.Namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + s.Name})
	if err != nil {
		return nil, fmt.Errorf("%s: endpoints: %w", kube.Name(o), err)
	}
	for _, slice := range list.Items {
		for _, p := range slice.Endpoints {
			if p.Conditions.Ready == nil || *p.Conditions.Ready {
				return nil, nil
			}
		}
	}
	return &ailing{object: o, why: "none of its pods takes requests yet"}, nil
}

// selectsOf reports whether a service is served by a workload of the release that
// has pods all the time.
func selectsOf(s *corev1.Service, all []*unstructured.Unstructured) bool {
	if len(s.Spec.Selector) == 0 {
		return false
	}
	selector := labels.SelectorFromSet(s.Spec.Selector)
	for _, o := range all {
		switch o.GetKind() {
		case "Deployment", "StatefulSet", "DaemonSet":
		default:
			continue
		}
		replicas, set, _ := unstructured.NestedInt64(o.Object, "spec", "replicas")
		have, _, _ := unstructured.NestedStringMap(o.Object, "spec", "template", "metadata", "labels")
		if (!set || replicas > 0) && selector.Matches(labels.Set(have)) {
			return true
		}
	}
	return false
}

// probes are the objects the app names as needed for its health.
func (r *release) probes() []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for _, p := range r.app.Spec.Health {
		o := &unstructured.Unstructured{}
		o.SetAPIVersion(p.APIVersion)
		o.SetKind(p.Kind)
		o.SetName(p.Name)
		o.SetNamespace(p.Namespace)
		out = append(out, o)
	}
	return out
}
