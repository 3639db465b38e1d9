package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	networkSettings = "terraform/vars/network.yaml"
	kubeVIPManifest = "/var/lib/rancher/k3s/server/manifests/k3lab-kube-vip.yaml"
	// longestLease is how long the API may be away where a lease has to end, and the
	// datastore to elect a leader before anybody can take it: some 8 seconds. A client
	// that keeps its connection tries it again after times that double.
	longestLease = 30 * time.Second
)

// TestKubeVIP: kube-vip keeps the VIP, gives way to keepalived, and nothing is left
// where there is to be no VIP. It needs a K3s whose pods are real, and archives of
// its images and kube-vip's.
func TestKubeVIP(t *testing.T) {
	archives := strings.Fields(os.Getenv(podImages))
	if !slices.ContainsFunc(archives, func(a string) bool { return strings.Contains(filepath.Base(a), "kube-vip") }) {
		t.Skip(podImages + " names no archive with kube-vip's image")
	}
	l := newLab(t, "k3lab-e2e-kubevip", "ha")
	l.bring(archives)
	l.edit(networkSettings, "\nvrrp_id: 51\n", "\nvip_provider: kube-vip\n")
	l.phase("kube-vip keeps the address", func(t *testing.T) { kubeVIPKeeps(t, l) })
	l.phase("what another machine has is not taken", func(t *testing.T) { kubeVIPClaims(t, l) })
	for _, f := range l.someFailures() {
		l.phase(f.name, func(t *testing.T) { failOver(t, l, f, longestLease, func(string) {}) })
	}
	l.phase("keepalived takes over", func(t *testing.T) { keepalivedTakesOver(t, l) })
	l.phase("and gives way again", func(t *testing.T) { keepalivedGivesWay(t, l) })
	l.phase("no address, nothing that keeps it", func(t *testing.T) {
		noVIP(t, l)
		eventually(t, 90*time.Second, "K3s has taken kube-vip away", func() bool { return kubeVIPObjects(l) == "" })
	})
}

// bring has the lab bring archives of images along, and start nothing that needs
// others.
func (l *lab) bring(archives []string) {
	l.t.Helper()
	var names []string
	for _, from := range archives {
		text, err := os.ReadFile(from)
		if err != nil {
			l.t.Fatal(err)
		}
		name := "images/" + filepath.Base(from)
		if err := os.MkdirAll(filepath.Join(l.dir, "images"), 0o755); err != nil {
			l.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(l.dir, name), text, 0o644); err != nil {
			l.t.Fatal(err)
		}
		names = append(names, name)
	}
	l.replaceSettings(l.t, "", "  images: ["+strings.Join(names, ", ")+"]\n")
}

// someFailures are all ways to fail where the long proofs run, else two.
func (*lab) someFailures() []failure {
	if os.Getenv("SEEDS") == "" {
		return failures()[:2]
	}
	return failures()
}

func kubeVIPKeeps(t *testing.T, l *lab) {
	out := l.exit(0, "up", "--yes")
	whole(t, l)
	has := holder(t, l, vipOf(t, l))
	if want := "VIP: " + vipOf(t, l).String() + " on " + has + " (by kube-vip)\n"; !strings.Contains(out, want) {
		t.Errorf("up does not end with %q:\n%s", want, out)
	}
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan after up: %v", describe(changes))
	}
	l.exit(0, "status", "--security")
	if got := l.onMachine("agent-1", "sh", "-c", "'grep -h server: /etc/rancher/k3s/config.yaml /etc/rancher/k3s/config.yaml.d/*'"); !strings.Contains(got, "11:6443") || strings.Contains(got, "10:6443") {
		t.Errorf("agent-1 joins by %s", got)
	}
	if rules := l.onMachine("server-1", "nft", "list", "table", "inet", "k3lab"); strings.Contains(rules, "vrrp") {
		t.Errorf("the firewall lets VRRP in:\n%s", rules)
	}
	const account = "--as=system:serviceaccount:kube-system:k3lab-kube-vip"
	may := func(args ...string) string {
		cmd := append([]string{"-C", l.dir, "ssh", "server-1", "--", "sudo", "k3s", "kubectl", "auth", "can-i", account, "-n", "kube-system"}, args...)
		answer, _ := l.run(cmd...) // no is an exit code, too
		return strings.TrimSpace(regexp.MustCompile(`(?m)^(yes|no)\b`).FindString(answer))
	}
	for what, want := range map[string]string{
		"get leases/k3lab-kube-vip": "yes", "update leases/k3lab-kube-vip": "yes", "create leases": "yes",
		"update leases/k3s": "no", "delete leases/k3lab-kube-vip": "no", "get secrets": "no", "update nodes": "no", "list pods": "no",
	} {
		if got := may(strings.Fields(what)...); got != want {
			t.Errorf("kube-vip may %s: %s, want %s", what, got, want)
		}
	}
}

// kubeVIPClaims: an address that another machine has is refused before any pod takes it.
func kubeVIPClaims(t *testing.T, l *lab) {
	was, foreign := vipOf(t, l).String(), vipOf(t, l).Prev().String()
	device := strings.Fields(l.onMachine("agent-1", "ip", "-o", "route", "get", "192.0.2.1"))[4]
	before := l.onMachine("server-1", "cat", kubeVIPManifest)
	l.onMachine("agent-1", "ip", "addr", "add", foreign+"/32", "dev", device)
	l.edit(networkSettings, "vip: "+was, "vip: "+foreign)
	out := l.exit(1, "up", "--yes")
	for _, s := range []string{"server-1", "server-2", "server-3"} {
		if want := s + ": file " + kubeVIPManifest + ": another machine has the address " + foreign + " already"; !strings.Contains(out, want) {
			t.Errorf("not said: %s\n%s", want, out)
		}
	}
	if now := l.onMachine("server-1", "cat", kubeVIPManifest); now != before {
		t.Errorf("kube-vip was given the address:\n%s", now)
	}
	l.onMachine("agent-1", "ip", "addr", "del", foreign+"/32", "dev", device)
	l.edit(networkSettings, "vip: "+foreign, "vip: "+was)
	l.exit(0, "up", "--yes")
	whole(t, l)
}

func keepalivedTakesOver(t *testing.T, l *lab) {
	l.edit(networkSettings, "\nvip_provider: kube-vip\n", "\nvrrp_id: 51\n")
	began := time.Now()
	out := l.exit(0, "up", "--yes")
	t.Logf("from kube-vip to keepalived: %.1fs", time.Since(began).Seconds())
	if want := " (by keepalived)\n"; !strings.Contains(out, want) {
		t.Errorf("up does not end with %q:\n%s", want, out)
	}
	eventually(t, 90*time.Second, "K3s has taken kube-vip away", func() bool { return kubeVIPObjects(l) == "" })
	eventually(t, 20*time.Second, "the API answers at the VIP", func() bool { _, err := l.run("-C", l.dir, "status"); return err == nil })
	whole(t, l)
	if have := holders(t, l); len(have) != 1 {
		t.Errorf("the VIP is on %v, want one server", have)
	}
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan: %v", describe(changes))
	}
}

// kubeVIPObjects are what the cluster has of kube-vip's.
func kubeVIPObjects(l *lab) string {
	const kinds = "daemonset,pod,role,rolebinding,serviceaccount"
	all := onStdin(l, "server-1", "", "k3s kubectl get -n kube-system -o name "+kinds)
	return strings.Join(regexp.MustCompile(`(?m)^.*k3lab-kube-vip.*$`).FindAllString(all, -1), " ")
}

// keepalivedGivesWay: kube-vip has the address again, and of keepalived nothing is left.
func keepalivedGivesWay(t *testing.T, l *lab) {
	l.edit(networkSettings, "\nvrrp_id: 51\n", "\nvip_provider: kube-vip\n")
	began := time.Now()
	out := l.exit(0, "up", "--yes")
	t.Logf("from keepalived to kube-vip: %.1fs", time.Since(began).Seconds())
	if want := " (by kube-vip)\n"; !strings.Contains(out, want) {
		t.Errorf("up does not end with %q:\n%s", want, out)
	}
	whole(t, l)
	noKeepalived(t, l)
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan: %v", describe(changes))
	}
}

// holders are the servers that have the VIP.
func holders(t *testing.T, l *lab) []string {
	t.Helper()
	var have []string
	for _, s := range []string{"server-1", "server-2", "server-3"} {
		if strings.Contains(l.onMachine(s, "ip", "-o", "-4", "addr"), " "+vipOf(t, l).String()+"/") {
			have = append(have, s)
		}
	}
	return have
}

// noVIP: without a VIP in the settings what keeps it goes, with all that k3lab has
// put there for it.
func noVIP(t *testing.T, l *lab) {
	path := filepath.Join(l.dir, networkSettings)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, regexp.MustCompile(`(?m)^(vip|vip_provider|vrrp_id):.*\n`).ReplaceAllString(string(text), ""))
	l.exit(0, "up", "--yes")
	whole(t, l)
	eventually(t, 90*time.Second, "no server has the VIP", func() bool { return len(holders(t, l)) == 0 })
	noKeepalived(t, l)
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan: %v", describe(changes))
	}
}

// noKeepalived: nothing of what k3lab puts on servers for it is there.
func noKeepalived(t *testing.T, l *lab) {
	t.Helper()
	left := "ls -d /etc/keepalived/* /etc/systemd/system/k3s.service.d/50-vip.conf /run/k3lab-k3s-stopped 2>/dev/null; " +
		"dpkg-query --show --showformat=\"\\${Package} \\${db:Status-Abbrev}\" keepalived 2>/dev/null; systemctl is-active keepalived"
	for _, s := range []string{"server-1", "server-2", "server-3"} {
		cmd := l.command(t.Context(), "-C", l.dir, "ssh", s, "--", "sudo sh -c '"+left+"; true'")
		out, err := cmd.Output()
		if err != nil || strings.TrimSpace(string(out)) != "inactive" {
			t.Errorf("%s: left: %s (%v)", s, out, err)
		}
	}
}
