package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/k3lab/k3lab/internal/fault"
)

// PolicyLabel is the label by which a namespace asks for network policies: its
// value names a folder below namespaces/.
const PolicyLabel = "k3lab.io/policy"

// setLabel is on every object of the policies, so that one that is taken out of
// the files is found in the cluster.
const setLabel = "k3lab.io/set"

// Manifests are the policies of a workspace as kustomize builds them.
type Manifests struct {
	Cluster    []*unstructured.Unstructured            // applied once
	Namespaces map[string][]*unstructured.Unstructured // by value of PolicyLabel: applied to each namespace that has it
}

// ReadManifests builds the kustomization in dir and those below dir/namespaces.
// A dir without a kustomization is fs.ErrNotExist, one that cannot be built
// fault.Invalid.
func ReadManifests(dir string) (*Manifests, error) {
	if _, err := os.Stat(filepath.Join(dir, "kustomization.yaml")); err != nil {
		return nil, fmt.Errorf("policies: %w", err)
	}
	m := &Manifests{Namespaces: map[string][]*unstructured.Unstructured{}}
	var err error
	if m.Cluster, err = build(dir); err != nil {
		return nil, err
	}
	below := filepath.Join(dir, "namespaces")
	entries, err := os.ReadDir(below)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("policies: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if m.Namespaces[e.Name()], err = build(filepath.Join(below, e.Name())); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// build is what kubectl kustomize prints for dir, as objects.
func build(dir string) ([]*unstructured.Unstructured, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, fault.New(fault.Invalid, dir, "kubectl kustomize "+dir, "kustomize: %w", err)
	}
	var out []*unstructured.Unstructured
	for _, r := range built.Resources() {
		o := &unstructured.Unstructured{}
		content, err := r.MarshalJSON()
		if err == nil {
			err = o.UnmarshalJSON(content)
		}
		if err != nil {
			return nil, fault.New(fault.Invalid, dir, "kubectl kustomize "+dir, "kustomize: %w", err)
		}
		out = append(out, o)
	}
	return out, nil
}

// objects is everything that should be there, given the namespaces that ask for
// policies (name → value of their label), in the order it is made. A namespace
// that asks for one there is no folder for is in unknown.
func (m *Manifests) objects(asking map[string]string) (out []*unstructured.Unstructured, unknown []string) {
	for _, o := range m.Cluster {
		out = append(out, o.DeepCopy())
	}
	for namespace, policy := range asking {
		set, known := m.Namespaces[policy]
		if !known {
			unknown = append(unknown, namespace)
		}
		for _, o := range set {
			o = o.DeepCopy()
			o.SetNamespace(namespace)
			out = append(out, o)
		}
	}
	slices.Sort(unknown)
	slices.SortStableFunc(out, func(a, b *unstructured.Unstructured) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(objectName(a), objectName(b)))
	})
	return out, unknown
}

// rank puts first what others need to be there.
func rank(o *unstructured.Unstructured) int {
	switch o.GetKind() {
	case "Namespace", "CustomResourceDefinition":
		return 0
	default:
		return 1
	}
}

// objectName names an object as people do: Kind namespace/name.
func objectName(o *unstructured.Unstructured) string {
	name := o.GetName()
	if ns := o.GetNamespace(); ns != "" {
		name = ns + "/" + name
	}
	return o.GetKind() + " " + name
}
