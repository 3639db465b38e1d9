package e2e

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// whatIsLeft lists what a reset takes off a machine.
const whatIsLeft = `
ls -d /etc/rancher /etc/k3lab /etc/cni /run/k3s /run/flannel /var/lib/cni /var/log/k3s /var/lib/k3lab/cache /usr/local/bin/* /etc/systemd/system/k3* 2>/dev/null || true
find /var/lib/rancher /var/lib/kubelet -mindepth 1
pgrep -a k3s || true; pgrep -a containerd || true
nft list tables | grep k3lab || true
ip -brief link | grep -e cni0 -e flannel || true
iptables-save | grep -e KUBE- -e CNI- -e FLANNEL || true
grep -e kubelet/ -e /run/k3s -e rancher/k3s /proc/mounts || true`

// fails runs a playbook that must fail, and returns what it prints.
func (l *lab) fails(t *testing.T, args ...string) string {
	t.Helper()
	out, err := l.ansible(t, args...)
	if err == nil {
		t.Errorf("ansible-playbook %s did not fail:\n%s", strings.Join(args, " "), out)
	}
	return out
}

// machinesAreReset: check mode and a wrong name change nothing; one agent is taken
// out of the cluster and put back; then the whole cluster goes, and the machines
// carry another one.
func machinesAreReset(t *testing.T, l *lab) {
	l.playbook(t, "reset.yaml", "--check")
	const wrong = "the lab is not called 'other' (try: k3lab reset --name "
	out := strings.NewReplacer(`\"`, "'", `"`, "'").Replace(l.fails(t, "reset.yaml", "-e", "confirm=other"))
	if !strings.Contains(out, wrong) || strings.Contains(out, "Traceback") || strings.Contains(out, "An exception occurred") {
		t.Errorf("it does not only say %q:\n%s", wrong, out)
	}
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan after --check and a wrong name: %v", describe(changes))
	}

	want := map[string]string{"agent-2": "1 0 0"}
	if d := cmp.Diff(want, recapOf(l.playbook(t, "reset.yaml", "-e", "confirm="+l.name, "--limit", "agent-2"))); d != "" {
		t.Errorf("agent-2 alone: changed, unreachable, failed (-want +got):\n%s", d)
	}
	known := strings.Fields(withoutBanner(l.onMachine("server-1", "kubectl", "get", "nodes", "-o", "name")))
	passwords := withoutBanner(l.onMachine("server-1", "kubectl", "-n", "kube-system", "get", "secrets", "-o", "name"))
	if d := cmp.Diff([]string{"node/agent-1", "node/server-1"}, known); d != "" || strings.Contains(passwords, "agent-2") {
		t.Errorf("nodes (-want +got):\n%s\npasswords: %s", d, passwords)
	}
	if left := withoutBanner(l.script("agent-2", whatIsLeft)); left != "" {
		t.Errorf("left on agent-2:\n%s", left)
	}
	for _, c := range l.plan(2) {
		if c.Object != "agent-2" {
			t.Errorf("the reset of agent-2 changed %v", describe([]change{c}))
		}
	}
	l.playbook(t, "site.yaml")
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan after site.yaml: %v", describe(changes))
	}

	all := map[string]string{"server-1": "1 0 0", "agent-1": "1 0 0", "agent-2": "1 0 0"}
	if d := cmp.Diff(all, recapOf(l.playbook(t, "reset.yaml", "-e", "confirm="+l.name))); d != "" {
		t.Errorf("all: changed, unreachable, failed (-want +got):\n%s", d)
	}
	for m := range all {
		if left := withoutBanner(l.script(m, whatIsLeft)); left != "" {
			t.Errorf("left on %s:\n%s", m, left)
		}
		all[m] = "0 0 0"
	}
	if d := cmp.Diff(all, recapOf(l.playbook(t, "reset.yaml", "-e", "confirm="+l.name))); d != "" {
		t.Errorf("again: changed, unreachable, failed (-want +got):\n%s", d)
	}
	l.exit(0, "up", "--yes")
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan of the other cluster: %v", describe(changes))
	}
}
