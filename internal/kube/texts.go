package kube

import (
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// Texts are two states of an object as YAML, without what the API itself keeps
// in it: they are equal when nobody would see a difference. The first may be
// empty. Of the data of a Secret they show only which of it differs.
func Texts(before, after *unstructured.Unstructured) (b, a string, err error) {
	before, after = before.DeepCopy(), after.DeepCopy()
	if after.GetKind() == "Secret" {
		mask(before, after)
	}
	if len(before.Object) > 0 {
		if b, err = text(before); err != nil {
			return "", "", err
		}
	}
	a, err = text(after)
	return b, a, err
}

// mask replaces what is secret in two states of one Secret.
func mask(before, after *unstructured.Unstructured) {
	for _, field := range []string{"data", "stringData"} {
		old, _, _ := unstructured.NestedMap(before.Object, field) // another type is not shown at all
		now, _, _ := unstructured.NestedMap(after.Object, field)
		shown, to := map[string]any{}, map[string]any{}
		for key, value := range now {
			to[key] = "***"
			if was, had := old[key]; had && !reflect.DeepEqual(was, value) {
				to[key] = "*** (another)"
			}
		}
		for key := range old {
			shown[key] = "***"
		}
		for o, masked := range map[*unstructured.Unstructured]map[string]any{before: shown, after: to} {
			if _, there := o.Object[field]; there {
				o.Object[field] = masked
			}
		}
	}
}

func text(o *unstructured.Unstructured) (string, error) {
	for _, field := range []string{"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	// kubectl keeps a copy of the whole object there, secrets included.
	unstructured.RemoveNestedField(o.Object, "metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration")
	if len(o.GetAnnotations()) == 0 {
		unstructured.RemoveNestedField(o.Object, "metadata", "annotations")
	}
	unstructured.RemoveNestedField(o.Object, "status")
	out, err := yaml.Marshal(o.Object)
	if err != nil {
		return "", fmt.Errorf("%s: %w", Name(o), err)
	}
	return string(out), nil
}
