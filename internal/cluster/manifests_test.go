package cluster

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/kube"
)

const templates = "../workspace/templates/kubernetes/policies"

// TestObjectsOfTheTemplate: everything a workspace begins with, for a cluster
// with three namespaces that ask for policies, one of them for what is not there.
func TestObjectsOfTheTemplate(t *testing.T) {
	m, err := ReadManifests(templates)
	if err != nil {
		t.Fatal(err)
	}
	objects, unknown := m.objects(map[string]string{"media": "isolated", "bank": "default-deny", "odd": "open"})
	var got []string
	for _, o := range objects {
		got = append(got, kube.Name(o))
		if o.GetLabels()[setLabel] != "policies" {
			t.Errorf("%s has not the label by which it is found again", kube.Name(o))
		}
	}
	want := []string{
		"ClusterRole k3lab:admin", "ClusterRole k3lab:operator", "ClusterRole k3lab:operator-apps",
		"ClusterRole k3lab:viewer", "ClusterRole k3lab:viewer-cluster",
		"NetworkPolicy bank/k3lab-egress", "NetworkPolicy bank/k3lab-ingress", "NetworkPolicy media/k3lab-ingress",
		"ServiceAccount bank/default", "ServiceAccount default/default", "ServiceAccount media/default",
		"ValidatingAdmissionPolicy k3lab-protected-namespaces", "ValidatingAdmissionPolicyBinding k3lab-protected-namespaces",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("objects (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"odd"}, unknown); d != "" {
		t.Errorf("unknown (-want +got):\n%s", d)
	}
}

// TestRolesHoldNoWayUp: what viewer and operator are given beyond Kubernetes' view
// role neither reads secrets nor leads to other rights.
func TestRolesHoldNoWayUp(t *testing.T) {
	m, err := ReadManifests(templates)
	if err != nil {
		t.Fatal(err)
	}
	forbidden := map[string]bool{
		"*": true, "secrets": true, "serviceaccounts": true, "serviceaccounts/token": true, "namespaces": true, "networkpolicies": true,
		"roles": true, "rolebindings": true, "clusterroles": true, "clusterrolebindings": true, "nodes/proxy": true, "users": true,
		"certificatesigningrequests": true, "certificatesigningrequests/approval": true, "validatingadmissionpolicies": true,
	}
	looked := 0
	for _, o := range m.Cluster {
		if o.GetKind() != "ClusterRole" || o.GetName() == "k3lab:admin" {
			continue
		}
		rules, _, err := unstructured.NestedSlice(o.Object, "rules")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rules {
			resources, _, err := unstructured.NestedStringSlice(r.(map[string]any), "resources")
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range resources {
				looked++
				if forbidden[name] {
					t.Errorf("%s gives %s", o.GetName(), name)
				}
			}
		}
	}
	if looked < 30 {
		t.Errorf("only %d resources looked at: the test looks in the wrong place", looked)
	}
}

func TestNamespacesAndDefinitionsComeFirst(t *testing.T) {
	object := func(kind, namespace, name string) *unstructured.Unstructured {
		o := &unstructured.Unstructured{Object: map[string]any{"kind": kind}}
		o.SetName(name)
		o.SetNamespace(namespace)
		return o
	}
	m := Manifests{Cluster: []*unstructured.Unstructured{
		object("ConfigMap", "a", "x"), object("Namespace", "", "z"), object("CustomResourceDefinition", "", "y"), object("ClusterRole", "", "b"),
	}}
	objects, _ := m.objects(nil)
	var got []string
	for _, o := range objects {
		got = append(got, kube.Name(o))
	}
	want := []string{"CustomResourceDefinition y", "Namespace z", "ClusterRole b", "ConfigMap a/x"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("order (-want +got):\n%s", d)
	}
}

func TestReadManifestsRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadManifests(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder without policies: %v, want it told apart", err)
	}
	broken := "resources: [not-there.yaml]\n"
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadManifests(dir); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a file that is not there: %v, want it refused as invalid", err)
	}
}
