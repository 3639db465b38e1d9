package cluster

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// texts are two states of an object as YAML, without what the API itself keeps
// in it: they are equal when nobody would see a difference.
func texts(before, after *unstructured.Unstructured) (b, a string, err error) {
	if len(before.Object) > 0 {
		if b, err = text(before); err != nil {
			return "", "", err
		}
	}
	a, err = text(after)
	return b, a, err
}

func text(o *unstructured.Unstructured) (string, error) {
	o = o.DeepCopy()
	for _, field := range []string{"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(o.Object, "status")
	out, err := yaml.Marshal(o.Object)
	if err != nil {
		return "", fmt.Errorf("%s: %w", objectName(o), err)
	}
	return string(out), nil
}
