package kube

import (
	"context"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/k3lab/k3lab/internal/step"
)

// Difference is what applying an object would change, which may be nothing.
type Difference struct {
	Action        step.Action                // Create or Update
	Before, After string                     // YAML; the data of secrets masked
	Live          *unstructured.Unstructured // what is there; empty for Create
}

// None reports whether nobody would see a difference.
func (d *Difference) None() bool { return d.Action == step.Update && d.Before == d.After }

// Compare asks the API what applying the object in a manager's name would change,
// by an apply that is not persisted. The namespaces in coming are made before the
// object is; what will stand in them cannot be asked for yet, and is shown as it is
// written.
func Compare(ctx context.Context, in dynamic.ResourceInterface, o *unstructured.Unstructured, manager string, coming []string) (*Difference, error) {
	d := &Difference{Action: step.Update}
	there, err := in.Get(ctx, o.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		d.Action, there, err = step.Create, &unstructured.Unstructured{Object: map[string]any{}}, nil
	}
	if err != nil {
		return nil, err
	}
	d.Live = there
	then, err := Apply(ctx, in, o, manager, true)
	if apierrors.IsNotFound(err) && slices.Contains(coming, o.GetNamespace()) {
		then, err = o, nil
	}
	if err != nil {
		return nil, err
	}
	d.Before, d.After, err = Texts(there, then)
	return d, err
}
