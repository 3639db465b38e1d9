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

	"github.com/k3lab/k3lab/internal/kube"
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
	if m.Cluster, err = kube.Build(dir); err != nil {
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
		if m.Namespaces[e.Name()], err = kube.Build(filepath.Join(below, e.Name())); err != nil {
			return nil, err
		}
	}
	return m, nil
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
		return cmp.Or(cmp.Compare(kube.Rank(a), kube.Rank(b)), cmp.Compare(kube.Name(a), kube.Name(b)))
	})
	return out, unknown
}
