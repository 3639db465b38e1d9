package kube

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/k3lab/k3lab/internal/fault"
)

// Build is what kubectl kustomize prints for dir, as objects.
func Build(dir string) ([]*unstructured.Unstructured, error) {
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
