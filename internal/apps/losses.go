package apps

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/k3lab/k3lab/internal/kube"
)

// keepNote is Helm's annotation on what stays when its release goes.
const keepNote = "helm.sh/resource-policy"

func kept(o *unstructured.Unstructured) bool { return o.GetAnnotations()[keepNote] == "keep" }

// losses names the data that goes when the objects are deleted: volumes, also
// those in a namespace or of a StatefulSet that takes its own along, and the
// objects of a kind whose definition goes.
func (e *Engine) losses(ctx context.Context, v *view, namespace string, objects []*unstructured.Unstructured) ([]string, error) {
	var out []string
	for _, o := range objects {
		if kept(o) {
			continue
		}
		in, err := v.Of(o, namespace)
		if err != nil {
			continue // where there is no such kind, nothing of it is there
		}
		live, err := in.Get(ctx, o.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kube.Name(o), err)
		}
		found, err := e.lossesOf(ctx, live)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func (e *Engine) lossesOf(ctx context.Context, o *unstructured.Unstructured) ([]string, error) {
	switch {
	case o.GetKind() == "PersistentVolumeClaim":
		return []string{kube.Name(o)}, nil
	case o.GetKind() == "Namespace":
		return e.claims(ctx, o.GetName(), func(string) bool { return true })
	case o.GetKind() == "StatefulSet":
		if when, _, _ := unstructured.NestedString(o.Object, "spec", "persistentVolumeClaimRetentionPolicy", "whenDeleted"); when != "Delete" {
			return nil, nil
		}
		return e.claims(ctx, o.GetNamespace(), func(name string) bool { return strings.Contains(name, "-"+o.GetName()+"-") })
	case isCRD(o):
		return e.ofKind(ctx, o)
	default:
		return nil, nil
	}
}

func (e *Engine) claims(ctx context.Context, namespace string, which func(name string) bool) ([]string, error) {
	list, err := e.client.Core.CoreV1().PersistentVolumeClaims(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("volumes of %s: %w", namespace, err)
	}
	var out []string
	for i := range list.Items {
		if name := list.Items[i].Name; which(name) {
			out = append(out, "PersistentVolumeClaim "+namespace+"/"+name)
		}
	}
	return out, nil
}

// ofKind tells how many objects of a kind go with its definition.
func (e *Engine) ofKind(ctx context.Context, crd *unstructured.Unstructured) ([]string, error) {
	text := func(fields ...string) string {
		s, _, _ := unstructured.NestedString(crd.Object, fields...)
		return s
	}
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	for _, v := range versions {
		version, ok := v.(map[string]any)
		if !ok || version["served"] != true {
			continue
		}
		name, _ := version["name"].(string)
		list, err := e.client.Dynamic.Resource(schema.GroupVersionResource{
			Group: text("spec", "group"), Version: name, Resource: text("spec", "names", "plural"),
		}).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("objects of %s: %w", crd.GetName(), err)
		}
		if n := len(list.Items); n > 0 {
			return []string{fmt.Sprintf("%d %s of %s", n, text("spec", "names", "kind"), crd.GetName())}, nil
		}
		return nil, nil
	}
	return nil, nil
}
