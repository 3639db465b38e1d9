package cluster

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/kube"
)

var until = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// TestPeopleComeAndGo: a person has one role, the one given last, and none after
// it is withdrawn; what k3lab has not made is left and told.
func TestPeopleComeAndGo(t *testing.T) {
	ctx := t.Context()
	byHand := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "by-hand", Namespace: "media"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: "anna"}},
	}
	group := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "everybody"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.GroupKind, Name: PeopleGroup}},
	}
	c := &Client{&kube.Client{Core: fake.NewClientset(byHand, group)}}
	for _, give := range []struct{ name, role string }{{"zoe", "admin"}, {"anna", "viewer"}, {"anna", "operator"}, {"anna", "operator"}} {
		if err := c.Bind(ctx, give.name, give.role, until); err != nil {
			t.Fatalf("%v: %v", give, err)
		}
	}
	people := func(want ...Person) {
		t.Helper()
		got, err := c.People(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("people (-want +got):\n%s", d)
		}
	}
	people(Person{"anna", "operator", until}, Person{"zoe", "admin", until})
	bound, others, err := c.Withdraw(ctx, "anna")
	if err != nil || !bound {
		t.Fatalf("withdraw: %v, %v", bound, err)
	}
	if d := cmp.Diff([]string{"ClusterRoleBinding everybody", "RoleBinding media/by-hand"}, others); d != "" {
		t.Errorf("others (-want +got):\n%s", d)
	}
	people(Person{"zoe", "admin", until})
	if bound, _, err = c.Withdraw(ctx, "nobody"); err != nil || bound {
		t.Errorf("withdraw from nobody: %v, %v", bound, err)
	}
}

func TestCheckRoleThatIsNotThere(t *testing.T) {
	err := (&Client{&kube.Client{Core: fake.NewClientset()}}).CheckRole(t.Context(), "viewer")
	want := "viewer: the cluster has no ClusterRole k3lab:viewer (try: k3lab up, with kubernetes/policies in the workspace)"
	if err == nil || err.Error() != want || fault.KindOf(err) != fault.Invalid {
		t.Errorf("%v, want %q as invalid", err, want)
	}
}

func TestCheckPerson(t *testing.T) {
	for name, ok := range map[string]bool{
		"anna": true, "anna.b-c_d@example.org": true, "a": true,
		"": false, "Anna": false, "system:masters": false, "anna/b": false, "-anna": false, "anna.": false, "an na": false, "änna": false,
	} {
		if err := CheckPerson(name, "viewer"); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestPersonKubeconfig(t *testing.T) {
	admin := []byte(`{apiVersion: v1, kind: Config, current-context: home,
clusters: [{name: home, cluster: {server: "https://192.0.2.10:6443", certificate-authority-data: Y2E=}}],
users: [{name: home, user: {client-key-data: c2VjcmV0, client-certificate-data: YWRtaW4=}}],
contexts: [{name: home, context: {cluster: home, user: home}}]}`)
	text, err := PersonKubeconfig(admin, "anna", Credentials{Key: []byte("key"), Certificate: []byte("certificate")})
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{config.Host, string(config.CAData), string(config.KeyData), string(config.CertData)}
	if d := cmp.Diff([]string{"https://192.0.2.10:6443", "ca", "key", "certificate"}, got); d != "" {
		t.Errorf("kubeconfig (-want +got):\n%s", d)
	}
	raw, err := clientcmd.Load(text)
	if err != nil || raw.CurrentContext != "anna@home" || len(raw.AuthInfos) != 1 {
		t.Errorf("context %q, users %v, %v: the administrator's must not be in it", raw.CurrentContext, raw.AuthInfos, err)
	}
}
