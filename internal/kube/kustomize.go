package kube

import (
	"regexp"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/k3lab/k3lab/internal/fault"
)

// Build is what kubectl kustomize prints for dir, as objects.
func Build(dir string) ([]*unstructured.Unstructured, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, fault.New(fault.Invalid, dir, "kubectl kustomize "+dir, "kustomize: %s", cause(err.Error()))
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

// notThere is how kustomize ends each of its attempts to read what a file names.
var notThere = regexp.MustCompile(`lstat (\S+): no such file or directory`)

// cause is what kustomize found wrong, without the ways it tried first.
func cause(text string) string {
	if m := notThere.FindStringSubmatch(text); m != nil {
		return m[1] + " is not there"
	}
	return text
}
