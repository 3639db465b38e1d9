package e2e

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// balancerPath is where an agent keeps the servers it balances over.
const balancerPath = "/var/lib/rancher/k3s/agent/etc/k3s-agent-load-balancer.json"

// balancesOverAll proves that each agent knows every server, whichever it joined
// through.
func balancesOverAll(t *testing.T, l *lab) {
	t.Helper()
	var want []string
	for _, s := range []string{"server-1", "server-2", "server-3"} {
		want = append(want, l.addressOf(t, s)+":6443")
	}
	slices.Sort(want)
	for _, agent := range []string{"agent-1", "agent-2"} {
		var state struct{ ServerAddresses []string }
		if err := json.Unmarshal([]byte(l.onMachine(agent, "cat", balancerPath)), &state); err != nil {
			t.Fatal(err)
		}
		slices.Sort(state.ServerAddresses)
		if d := cmp.Diff(want, state.ServerAddresses); d != "" {
			t.Errorf("servers %s balances over (-want +got):\n%s", agent, d)
		}
	}
}

// renewsAfter reports whether the node has told the API after that moment that it
// is alive; else what it has lost is found out only after 40 seconds.
func renewsAfter(client kubernetes.Interface, node string, moment time.Time) bool {
	lease, err := client.CoordinationV1().Leases("kube-node-lease").Get(context.Background(), node, metav1.GetOptions{})
	return err == nil && lease.Spec.RenewTime != nil && lease.Spec.RenewTime.After(moment)
}

// firstServerLost has the server that began the cluster lose its power: nothing
// else may depend on it, neither agents nor k3lab.
func firstServerLost(t *testing.T, l *lab) {
	balancesOverAll(t, l)
	client := adminOf(t, l)
	l.onMachine("agent-1", "rm", "/usr/local/bin/kubectl")
	newProxmox(t, l.sandbox()).power("server-1", "stop", "stopped")
	// What was on its way when the power went may have been taken still.
	dead := time.Now().Add(2 * time.Second)

	want := []string{"agent-1: create link /usr/local/bin/kubectl", "server-1: deferred"}
	got := describe(l.plan(2, "--layer", "platform"))
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
	out := l.exit(4, "up", "--yes", "--layer", "platform", "--timeout", "5s")
	if !strings.Contains(out, "k3lab: server-1: ssh ") || strings.Contains(out, "server-2: ssh ") {
		t.Errorf("up does not name server-1 alone:\n%s", out)
	}
	if link := l.onMachine("agent-1", "readlink", "/usr/local/bin/kubectl"); strings.TrimSpace(link) != "/usr/local/bin/k3s" {
		t.Errorf("agent-1 was not mended: %q", link)
	}
	if out := l.exit(6, "status"); !strings.Contains(out, "server-1: does not answer SSH") {
		t.Errorf("status does not name server-1:\n%s", out)
	}
	kept := filepath.Join(l.dir, ".k3lab/kubeconfig")
	l.exit(0, "kubeconfig")
	if text := readFile(t, kept); !strings.Contains(text, "https://"+vipOf(t, l).String()+":6443") {
		t.Error("kubeconfig does not lead to the VIP")
	}
	for _, agent := range []string{"agent-1", "agent-2"} {
		took := eventually(t, 35*time.Second, agent+" renews its lease without server-1", func() bool { return renewsAfter(client, agent, dead) })
		t.Logf("%s has told the API %.1fs after it was looked at that it is alive", agent, took.Seconds())
	}
	nodes, err := client.CoreV1().Nodes().List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes.Items {
		for _, c := range n.Status.Conditions {
			if c.Type == "Ready" && c.Status != "True" && n.Name != "server-1" {
				t.Errorf("%s is not ready: %s", n.Name, c.Message)
			}
		}
	}
}

// firstServerRebuilt has the server that began the cluster, and an agent, be gone
// with their disks, and made anew by k3lab: it joins the cluster that is there and begins no second.
func firstServerRebuilt(t *testing.T, l *lab) {
	client := adminOf(t, l)
	cluster := func() string {
		t.Helper()
		system, err := client.CoreV1().Namespaces().Get(context.Background(), "kube-system", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return string(system.UID)
	}
	was := cluster()
	api := newProxmox(t, l.sandbox())
	lost := []string{"server-1", "agent-1"}
	for _, name := range lost {
		if name != "server-1" { // lost its power in the phase before
			api.power(name, "stop", "stopped")
		}
		v := api.find(name)
		api.call("DELETE", "/nodes/"+v.Node+"/qemu/"+itoa(v.VMID), nil)
		eventually(t, 30*time.Second, name+" is gone", func() bool { return !api.has(name) })
	}
	for _, c := range l.plan(2) {
		if !slices.Contains(lost, c.Object) {
			t.Errorf("plan changes %s: %+v", c.Object, c)
		}
	}
	out := l.exit(0, "up", "--yes")
	whole(t, l)
	for _, name := range lost {
		// K3s keeps a name for the machine that had it until its node is deleted.
		if !strings.Contains(out, name+": delete node") {
			t.Errorf("%s: the node of the lost machine was not deleted:\n%s", name, out)
		}
	}
	join := l.onMachine("server-1", "cat", "/etc/rancher/k3s/config.yaml.d/50-join.yaml")
	if strings.Contains(join, "cluster-init") || !strings.Contains(join, "server: https://") {
		t.Errorf("server-1 does not join the cluster that is there:\n%s", join)
	}
	if now := cluster(); now != was {
		t.Errorf("the cluster is another one: %s, was %s", now, was)
	}
	balancesOverAll(t, l)
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan: %v", describe(changes))
	}
}
