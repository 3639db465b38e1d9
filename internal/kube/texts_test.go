package kube

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestTexts: what the API keeps in an object is no difference, what people see is.
func TestTexts(t *testing.T) {
	object := func(version, verb string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"kind": "ClusterRole",
			"metadata": map[string]any{
				"name": "r", "resourceVersion": version, "uid": version, "generation": version, "creationTimestamp": version,
				"managedFields": []any{map[string]any{"time": version}},
			},
			"rules":  []any{map[string]any{"verbs": []any{verb}}},
			"status": map[string]any{"seen": version},
		}}
	}
	before, after, err := Texts(object("1", "get"), object("2", "get"))
	if err != nil || before != after {
		t.Errorf("before %q, after %q, %v: want them equal", before, after, err)
	}
	before, after, err = Texts(object("1", "get"), object("1", "delete"))
	want := "kind: ClusterRole\nmetadata:\n  name: r\nrules:\n- verbs:\n  - delete\n"
	if err != nil || before == after || after != want {
		t.Errorf("before %q, after %q, %v: want %q", before, after, err, want)
	}
	if before, _, err = Texts(&unstructured.Unstructured{}, object("1", "get")); err != nil || before != "" {
		t.Errorf("nothing there before: %q, %v", before, err)
	}
}

// TestTextsOfSecrets: they tell which data differs, and none of it.
func TestTextsOfSecrets(t *testing.T) {
	secret := func(fields map[string]any) *unstructured.Unstructured {
		o := map[string]any{"kind": "Secret", "metadata": map[string]any{"name": "s", "annotations": map[string]any{
			"kubectl.kubernetes.io/last-applied-configuration": `{"data":{"password":"hunter2"}}`,
		}}}
		for k, v := range fields {
			o[k] = v
		}
		return &unstructured.Unstructured{Object: o}
	}
	data := func(kv ...string) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return map[string]any{"data": m}
	}
	const head, foot = "data:\n", "kind: Secret\nmetadata:\n  name: s\n"
	for _, test := range []struct {
		name          string
		before, after map[string]any
		wantB, wantA  string
	}{
		{"the same", data("password", "hunter2"), data("password", "hunter2"), head + "  password: '***'\n" + foot, head + "  password: '***'\n" + foot},
		{"another value", data("password", "hunter2", "user", "me"), data("password", "hunter3", "user", "me"),
			head + "  password: '***'\n  user: '***'\n" + foot, head + "  password: '*** (another)'\n  user: '***'\n" + foot},
		{"one more, one less", data("password", "hunter2"), data("token", "hunter2"), head + "  password: '***'\n" + foot, head + "  token: '***'\n" + foot},
		{"as plain text", map[string]any{"stringData": map[string]any{"password": "hunter2"}}, map[string]any{"stringData": map[string]any{"password": "hunter3"}},
			foot + "stringData:\n  password: '***'\n", foot + "stringData:\n  password: '*** (another)'\n"},
		{"not a map at all", map[string]any{"data": "hunter2"}, map[string]any{"data": "hunter3"}, "data: {}\n" + foot, "data: {}\n" + foot},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, a, err := Texts(secret(test.before), secret(test.after))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff([]string{test.wantB, test.wantA}, []string{b, a}); d != "" {
				t.Errorf("texts (-want +got):\n%s", d)
			}
		})
	}
	if before, after, err := Texts(&unstructured.Unstructured{}, secret(data("password", "hunter2"))); err != nil || before != "" || after != head+"  password: '***'\n"+foot {
		t.Errorf("a new one: %q, %q, %v", before, after, err)
	}
}
