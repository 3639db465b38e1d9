package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func itoa(n int) string { return strconv.Itoa(n) }

// eventually asks again and again until it is so; how long that took is the result.
func eventually(t *testing.T, limit time.Duration, what string, is func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for tick := time.NewTicker(100 * time.Millisecond); ; <-tick.C {
		if is() {
			return time.Since(began)
		}
		if time.Since(began) > limit {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// status is what status --json prints.
type status struct {
	Members []struct {
		Name      string
		Reachable bool
		Datastore *struct {
			Answers   bool `json:"answers"`
			Learner   bool `json:"learner"`
			HasLeader bool `json:"has_leader"`
		}
		Node *struct {
			Ready bool
			Roles []string
		}
	}
	Voters   int
	Problems []string
}

func TestCluster(t *testing.T) {
	l := newLab(t, "k3lab-e2e", "ha")
	withSupplies(t, l)
	canaries := watchCommandLines(t, l)
	l.phase("up ends with a whole cluster", func(t *testing.T) {
		l.exit(0, "up", "--yes")
		whole(t, l)
	})
	l.phase("nothing is left to change", func(t *testing.T) {
		if changes := l.plan(0); len(changes) != 0 {
			t.Errorf("plan after up: %v", describe(changes))
		}
		began := time.Now()
		out := l.exit(0, "up", "--yes")
		t.Logf("up with nothing to change: %.1fs", time.Since(began).Seconds())
		if !strings.Contains(out, "No changes") {
			t.Errorf("the second up changed something:\n%s", out)
		}
	})
	l.phase("terraform by hand finds nothing to change", func(t *testing.T) { terraformByHand(t, l) })
	l.phase("the cluster is hardened", func(t *testing.T) { hardened(t, l) })
	l.phase("a change of hardening goes from server to server", func(t *testing.T) { hardeningChanges(t, l) })
	l.phase("drift is named and mended", func(t *testing.T) { drift(t, l) })
	l.phase("people may do what their role says", func(t *testing.T) { people(t, l) })
	l.phase("policies are kept as the files say", func(t *testing.T) { policies(t, l) })
	l.phase("apps are kept as their folders say", func(t *testing.T) { applications(t, l) })
	l.phase("security is checked on what is there", func(t *testing.T) { security(t, l) })
	l.phase("the firewall lets through what it must", func(t *testing.T) { firewallHolds(t, l) })
	l.phase("traffic of pods goes where it may", func(t *testing.T) { pods(t, l) })
	l.phase("power is lost before a change is confirmed", func(t *testing.T) { powerLost(t, l) })
	l.phase("the operating system is as promised", func(t *testing.T) { operatingSystem(t, l) })
	l.phase("a change of sshd that would lock out is put back", func(t *testing.T) { lockOut(t, l) })
	l.phase("packages wait, fail alone, and complete", func(t *testing.T) { packages(t, l) })
	l.phase("ansible agrees with k3lab", func(t *testing.T) { ansibleAgrees(t, l) })
	l.phase("registries and images arrive, and go", func(t *testing.T) { suppliesArrive(t, l) })
	l.phase("machines are updated one after the other", func(t *testing.T) { machinesAreUpdated(t, l) })
	l.phase("what others in the network have is not taken", func(t *testing.T) { claimsHold(t, l) })
	l.phase("one server dies, the API stays", func(t *testing.T) { oneServerDies(t, l) })
	l.phase("the first server is lost, nothing else is", func(t *testing.T) { firstServerLost(t, l) })
	l.phase("the first server is made anew and joins", func(t *testing.T) { firstServerRebuilt(t, l) })
	l.phase("two servers die, quorum is lost and comes back", func(t *testing.T) { quorumLost(t, l) })
	l.phase("the cluster gets a new token", func(t *testing.T) { newToken(t, l) })
	l.phase("the machines get a new key", func(t *testing.T) { newLoginKey(t, l) })
	l.phase("secrets are only where they belong", func(t *testing.T) { canaries.search(t, l) })
	l.phase("no address, nothing that keeps it", func(t *testing.T) { noVIP(t, l) })
	l.phase("destroy removes the machines", func(t *testing.T) {
		l.exit(0, "destroy", "--name", l.name)
		var vms []vm
		newProxmox(t, l.sandbox()).call("GET", "/cluster/resources?type=vm", &vms)
		if len(vms) != 0 {
			t.Errorf("left behind: %v", vms)
		}
	})
}

func whole(t *testing.T, l *lab) {
	t.Helper()
	var s status
	mustJSON(t, l.exit(0, "status", "--json"), &s)
	var ready, voters int
	for _, m := range s.Members {
		if m.Node != nil && m.Node.Ready {
			ready++
		}
		if m.Datastore != nil && m.Datastore.Answers && m.Datastore.HasLeader && !m.Datastore.Learner {
			voters++
		}
		if strings.HasPrefix(m.Name, "server") && (m.Node == nil || !cmp.Equal(m.Node.Roles, []string{"control-plane", "etcd"})) {
			t.Errorf("%s: node %+v, want the roles control-plane and etcd", m.Name, m.Node)
		}
	}
	if ready != 5 || voters != 3 || len(s.Problems) != 0 {
		t.Errorf("%d nodes ready, %d voters, problems %v; want 5, 3, none", ready, voters, s.Problems)
	}
}

func terraformByHand(t *testing.T, l *lab) {
	if _, err := exec.LookPath("terraform"); err != nil {
		t.Skip("terraform is not installed")
	}
	script := fmt.Sprintf(`eval "$(%s -C %s env)"; terraform -chdir=%s/terraform plan -detailed-exitcode -no-color`, l.bin, l.dir, l.dir)
	cmd := exec.Command("bash", "-euc", script)
	cmd.Env = l.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("terraform plan: %v\n%s", err, out)
	}
}

// drift changes three things by hand: plan names exactly these, up mends exactly
// these.
func drift(t *testing.T, l *lab) {
	l.onMachine("server-2", "rm", "/etc/rancher/k3s/config.yaml")
	l.onMachine("agent-1", "systemctl", "stop", "k3s-agent")
	newProxmox(t, l.sandbox()).power("agent-2", "stop", "stopped")

	var known []string
	var deferred []string
	for _, c := range l.plan(2) {
		if c.Deferred != "" {
			deferred = append(deferred, c.Object)
			continue
		}
		known = append(known, describe([]change{c})[0])
	}
	slices.Sort(known)
	want := []string{"agent-1: start unit k3s-agent.service", "agent-2: start", "server-2: create file /etc/rancher/k3s/config.yaml"}
	if d := cmp.Diff(want, known); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"agent-2"}, deferred); d != "" {
		t.Errorf("deferred (-want +got):\n%s", d)
	}
	l.exit(0, "up", "--yes")
	whole(t, l)
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan after mending: %v", describe(changes))
	}
}

// holder is the server that has the VIP.
func holder(t *testing.T, l *lab, vip netip.Addr) string {
	t.Helper()
	for _, s := range []string{"server-1", "server-2", "server-3"} {
		if strings.Contains(l.onMachine(s, "ip", "-o", "-4", "addr"), " "+vip.String()+"/") {
			return s
		}
	}
	t.Fatalf("no server has the VIP %s", vip)
	return ""
}

func vipOf(t *testing.T, l *lab) netip.Addr {
	t.Helper()
	cidr, err := netip.ParsePrefix(l.sandbox().CIDR)
	if err != nil {
		t.Fatal(err)
	}
	b := cidr.Addr().As4()
	b[3] = 10
	return netip.AddrFrom4(b)
}

func quorumLost(t *testing.T, l *lab) {
	api := newProxmox(t, l.sandbox())
	api.power("server-1", "stop", "stopped")
	api.power("server-3", "stop", "stopped")
	eventually(t, time.Minute, "status says that quorum is lost", func() bool {
		out, err := l.run("-C", l.dir, "status")
		var e *exec.ExitError
		return errors.As(err, &e) && e.ExitCode() == 6 && strings.Contains(out, "quorum lost")
	})
	l.exit(0, "up", "--yes")
	whole(t, l)
}
