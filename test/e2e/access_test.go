package e2e

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// speaks returns a client with the rights of that kubeconfig.
func speaks(t *testing.T, kubeconfig string) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.Timeout = 10 * time.Second
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func adminOf(t *testing.T, l *lab) kubernetes.Interface {
	t.Helper()
	return speaks(t, filepath.Join(l.dir, ".k3lab/kubeconfig"))
}

// people: everybody may do what the role says and no more, and nothing after the
// role is withdrawn, though the certificate is good.
func people(t *testing.T, l *lab) {
	ctx := context.Background()
	issued := func(name, role string) kubernetes.Interface {
		t.Helper()
		path := filepath.Join(t.TempDir(), name)
		l.exit(0, "kubeconfig", "--user", name, "--role", role, "--lifetime", "10m", "--output", path)
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", path, info, err)
		}
		return speaks(t, path)
	}
	issued("vera", "admin") // whose role is then another: the new one takes the old one away
	viewer, operator, admin := issued("vera", "viewer"), issued("otto", "operator"), issued("ada", "admin")
	pod := func(namespace string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "try", Namespace: namespace}, Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "try", Image: "try.invalid/try"}}}}
	}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "try"}}
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	dryDelete := metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
	for who, as := range map[string]kubernetes.Interface{"viewer": viewer, "operator": operator, "admin": admin} {
		tries := map[string]struct {
			may []string
			try func() error
		}{
			"list pods":     {[]string{"viewer", "operator", "admin"}, func() error { _, err := as.CoreV1().Pods("").List(ctx, metav1.ListOptions{}); return err }},
			"list nodes":    {[]string{"viewer", "operator", "admin"}, func() error { _, err := as.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); return err }},
			"start a pod":   {[]string{"operator", "admin"}, func() error { _, err := as.CoreV1().Pods("default").Create(ctx, pod("default"), dry); return err }},
			"read secrets":  {[]string{"admin"}, func() error { _, err := as.CoreV1().Secrets("").List(ctx, metav1.ListOptions{}); return err }},
			"delete a node": {[]string{"admin"}, func() error { return as.CoreV1().Nodes().Delete(ctx, "agent-2", dryDelete) }},
			"make a role":   {[]string{"admin"}, func() error { _, err := as.RbacV1().ClusterRoles().Create(ctx, role, dry); return err }},
			"pod of kube": {[]string{"admin"}, func() error {
				_, err := as.CoreV1().Pods("kube-system").Create(ctx, pod("kube-system"), dry)
				return err
			}},
			"change a label": {[]string{"admin"}, func() error {
				_, err := as.CoreV1().Namespaces().Patch(ctx, "default", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{DryRun: dry.DryRun})
				return err
			}},
		}
		for what, tt := range tries {
			err := tt.try()
			if may := slices.Contains(tt.may, who); may && err != nil || !may && !apierrors.IsForbidden(err) {
				t.Errorf("%s, %s: allowed is %v, but: %v", who, what, may, err)
			}
		}
	}

	l.exit(0, "kubeconfig", "--revoke", "vera")
	eventually(t, 10*time.Second, "the revoked kubeconfig is refused", func() bool {
		_, err := viewer.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
		return apierrors.IsForbidden(err)
	})
	l.exit(1, "kubeconfig", "--revoke", "vera") // has none any more
	l.exit(0, "kubeconfig", "--revoke", "otto")
	l.exit(0, "kubeconfig", "--revoke", "ada")
	var list struct{ People []any }
	mustJSON(t, l.exit(0, "kubeconfig", "--list", "--json"), &list)
	if len(list.People) != 0 {
		t.Errorf("left after everybody is revoked: %v", list.People)
	}
}

// policies: what is changed, missing and too much in the cluster is named by plan
// and mended by up.
func policies(t *testing.T, l *lab) {
	ctx, api := context.Background(), adminOf(t, l)
	role, err := api.RbacV1().ClusterRoles().Get(ctx, "k3lab:viewer-cluster", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	role.Rules = append(role.Rules, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}})
	if _, err := api.RbacV1().ClusterRoles().Update(ctx, role, metav1.UpdateOptions{FieldManager: "by-hand"}); err != nil {
		t.Fatal(err)
	}
	if err := api.RbacV1().ClusterRoles().Delete(ctx, "k3lab:operator-apps", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	label := func(patch string) {
		t.Helper()
		if _, err := api.CoreV1().Namespaces().Patch(ctx, "bank", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "bank"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "bank has a service account", func() bool {
		_, err := api.CoreV1().ServiceAccounts("bank").Get(ctx, "default", metav1.GetOptions{})
		return err == nil
	})
	label(`{"metadata":{"labels":{"k3lab.io/policy":"default-deny"}}}`)
	expect := func(want ...string) {
		t.Helper()
		if d := cmp.Diff(want, describe(l.plan(2))); d != "" {
			t.Errorf("plan (-want +got):\n%s", d)
		}
		l.exit(0, "up", "--yes")
		if changes := l.plan(0); len(changes) != 0 {
			t.Errorf("plan after up: %v", describe(changes))
		}
	}
	expect(
		"kubernetes/policies: create ClusterRole k3lab:operator-apps",
		"kubernetes/policies: update ClusterRole k3lab:viewer-cluster",
		"kubernetes/policies: create NetworkPolicy bank/k3lab-egress",
		"kubernetes/policies: create NetworkPolicy bank/k3lab-ingress",
		"kubernetes/policies: update ServiceAccount bank/default",
	)
	deny, err := api.NetworkingV1().NetworkPolicies("bank").Get(ctx, "k3lab-egress", metav1.GetOptions{})
	if err != nil || !cmp.Equal(deny.Spec.PolicyTypes, []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}) || len(deny.Spec.Egress) != 2 {
		t.Errorf("k3lab-egress: %+v, %v; want two ways out", deny, err)
	}
	label(`{"metadata":{"labels":{"k3lab.io/policy":null}}}`)
	expect(
		"kubernetes/policies: delete NetworkPolicy bank/k3lab-egress",
		"kubernetes/policies: delete NetworkPolicy bank/k3lab-ingress",
		"kubernetes/policies: delete ServiceAccount bank/default",
	)
	if err := api.CoreV1().Namespaces().Delete(ctx, "bank", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// security: every check is good after up; what is then broken by hand is named.
func security(t *testing.T, l *lab) {
	vip := vipOf(t, l).As4()
	vip[3] = 13
	server3 := netip.AddrFrom4(vip).String()
	type row struct {
		Name, Verdict string
		Findings      []struct{ Object, Verdict, Evidence string }
	}
	look := func(exit int) (wrong map[string]string) {
		t.Helper()
		var result struct {
			Failed int
			Checks []row
		}
		mustJSON(t, l.exit(exit, "status", "--security", "--json"), &result)
		if len(result.Checks) < 15 {
			t.Errorf("only %d checks", len(result.Checks))
		}
		wrong = map[string]string{}
		for _, c := range result.Checks {
			for _, f := range c.Findings {
				if f.Verdict != "ok" {
					f.Evidence = strings.ReplaceAll(f.Evidence, server3, "SERVER3")
					wrong[c.Name+" on "+f.Object] = f.Verdict + ": " + f.Evidence
				}
			}
		}
		return wrong
	}
	same := func(want, got map[string]string) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("what is not good (-want +got):\n%s", d)
		}
	}
	same(map[string]string{}, look(0))

	l.onMachine("server-2", "chmod", "0644", "/etc/rancher/k3s/k3s.yaml")
	l.onMachine("server-1", "chmod", "0644", "/var/log/k3s/audit.log")
	if err := os.Chmod(filepath.Join(l.dir, ".k3lab/kubeconfig"), 0o644); err != nil {
		t.Fatal(err)
	}
	l.onMachine("agent-2", "nft", "delete", "table", "inet", "k3lab")
	l.onMachine("server-3", "nft", "delete", "table", "inet", "k3lab")
	api := adminOf(t, l)
	for _, name := range []string{"k3lab:viewer", "k3lab:admin"} {
		if err := api.RbacV1().ClusterRoles().Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	same(map[string]string{
		"firewall drops what no rule takes on agent-2":         "failed: there is no nftables table inet k3lab",
		"firewall drops what no rule takes on server-3":        "failed: there is no nftables table inet k3lab",
		"etcd cannot be reached from agents on agent-1":        "failed: reached etcd at SERVER3:2379, etcd peers at SERVER3:2380",
		"etcd cannot be reached from agents on agent-2":        "failed: reached etcd at SERVER3:2379, etcd peers at SERVER3:2380",
		"API requests are written to an audit log on server-1": "failed: others may read /var/log/k3s/audit.log (0644)",
		"secret files are root's alone on server-2":            "failed: others may read /etc/rancher/k3s/k3s.yaml (0644)",
		"keys on this computer are yours alone on cluster":     "failed: others may read " + filepath.Join(l.dir, ".k3lab/kubeconfig") + " (0644)",
		"roles and network policies are as written on cluster": "failed: not as kubernetes/policies says: ClusterRole k3lab:admin, ClusterRole k3lab:viewer",
	}, look(6))
	l.onMachine("server-2", "chmod", "0600", "/etc/rancher/k3s/k3s.yaml")
	l.onMachine("server-1", "chmod", "0600", "/var/log/k3s/audit.log")
	if err := os.Chmod(filepath.Join(l.dir, ".k3lab/kubeconfig"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.exit(0, "up", "--yes")
	same(map[string]string{}, look(0))
}
