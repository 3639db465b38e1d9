package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// reachable says who must reach what on a server and on an agent, and that
// nobody else may: admin (this computer), outside, server, agent, and pod (of
// the machine itself; pods of other machines have their node's address).
var reachable = []struct {
	probe
	server, agent string
}{
	{probe{"icmp", 0}, "admin outside server agent pod", "admin outside server agent pod"},
	{probe{"tcp", 22}, "admin", "admin"},
	{probe{"tcp", 6443}, "admin server agent pod", ""},
	{probe{"tcp", 2379}, "server", ""},
	{probe{"tcp", 2380}, "server", ""},
	{probe{"vrrp", 0}, "server", ""},
	{probe{"tcp", 10250}, "server agent pod", "server agent pod"},
	{probe{"tcp", 9100}, "server agent pod", "server agent pod"},
	{probe{"tcp", 10249}, "server agent pod", "server agent pod"},
	{probe{"tcp", 2381}, "server agent pod", ""},
	{probe{"tcp", 10257}, "server agent pod", ""},
	{probe{"tcp", 10259}, "server agent pod", ""},
	{probe{"udp", 8472}, "server agent", "server agent"},
	{probe{"tcp", 7946}, "server agent", "server agent"},
	{probe{"udp", 7946}, "server agent", "server agent"},
	{probe{"udp", 51820}, "", ""},
	{probe{"tcp", 30080}, "", ""},
	{probe{"tcp", 80}, "", ""},
	{probe{"tcp", 8080}, "", ""},
	{probe{"udp", 53}, "", ""},
	{probe{"tcp", 5514}, "", "outside"}, // a rule of the settings
	{probe{"udp", 5514}, "", ""},
}

const outsideNetwork = "203.0.113.0/24"

// firewallHolds proves on the running lab that the firewall lets through what it
// must and nothing else, that it touches nothing of others, and that settings
// that lock the operator out are put back.
func firewallHolds(t *testing.T, l *lab) {
	network, platform := filepath.Join(l.dir, "terraform/vars/network.yaml"), filepath.Join(l.dir, "ansible/group_vars/all.yaml")
	networkBefore, platformBefore := readFile(t, network), readFile(t, platform)
	address := l.addressOf(t, "server-2")
	src := regexp.MustCompile(`src ([0-9.]+)`).FindStringSubmatch(output(t, "ip", "route", "get", address))
	if src == nil {
		t.Fatal("no way to server-2")
	}
	// Else every machine would be an admin, and the matrix would prove less.
	adminsOnly := regexp.MustCompile(`(?m)^admin_networks:.*$`).ReplaceAllString(networkBefore, "admin_networks: ["+src[1]+"/32]")
	writeFile(t, network, adminsOnly)
	const settings = "\nfirewall:\n  enabled: %v\n  allow:\n    - {name: probe, ports: [5514], from: [" + outsideNetwork + "], roles: [agent]}\n"
	writeFile(t, platform, platformBefore+fmt.Sprintf(settings, true))
	l.exit(0, "up", "--yes")
	for target, role := range map[string]string{"server-2": "server", "agent-2": "agent"} {
		t.Run("reachability of "+target, func(t *testing.T) { matrix(t, l, target, role) })
	}

	for _, m := range []string{"server-1", "agent-1"} { // where K3s itself has no rules to lose
		l.shell(m, "sudo nft 'table ip probe { chain input { type filter hook input priority 0; counter; }; }'")
		defer l.shell(m, "sudo nft delete table ip probe")
	}
	others := foreignTables(l)
	if !strings.Contains(others["server-1"], "table ip probe {") {
		t.Errorf("server-1 has no rules of others: %s", others["server-1"])
	}
	l.onMachine("agent-1", "nft", "flush", "chain", "inet", "k3lab", "from_nodes")
	if got := describe(l.plan(2)); !slices.Equal(got, []string{"agent-1: update nftables k3lab"}) {
		t.Errorf("rules that were deleted by hand: %v", got)
	}

	// Settings that lock this computer out, and the agent's rules with them.
	writeFile(t, network, strings.Replace(adminsOnly, src[1]+"/32", "192.0.2.0/24", 1))
	out := l.exit(4, "up", "--yes")
	for _, m := range nodes {
		if !strings.Contains(out, m+": after the change no new connection could be made, so the old state was put back: ") {
			t.Errorf("%s: not said:\n%s", m, out)
		}
	}
	writeFile(t, network, adminsOnly)
	if got := describe(l.plan(2)); !slices.Equal(got, []string{"agent-1: update nftables k3lab"}) {
		t.Errorf("after it was put back, with the settings as before: %v", got)
	}

	writeFile(t, platform, platformBefore+fmt.Sprintf(settings, false))
	l.exit(0, "up", "--yes")
	for _, m := range []string{"server-1", "agent-1"} {
		left := l.shell(m, "sudo nft list tables | grep k3lab; sudo ls /etc/k3lab/firewall.nft /etc/systemd/system/k3lab-firewall.service /var/lib/k3lab/guard/pending.json; true")
		if strings.Contains(left, "inet k3lab") || strings.Count(left, "No such file") != 3 {
			t.Errorf("%s: left behind of the firewall: %s", m, left)
		}
	}
	if diff := cmp.Diff(others, foreignTables(l)); diff != "" {
		t.Errorf("tables of others changed:\n%s", diff)
	}
	writeFile(t, network, networkBefore)
	writeFile(t, platform, platformBefore)
	l.exit(0, "up", "--yes")
	if diff := cmp.Diff(others, foreignTables(l)); diff != "" {
		t.Errorf("tables of others changed:\n%s", diff)
	}
	whole(t, l)
}

// matrix makes every attempt from every place on one machine.
func matrix(t *testing.T, l *lab, target, role string) {
	address := l.addressOf(t, target)
	var probes []probe
	for _, r := range reachable {
		probes = append(probes, r.probe)
	}
	list := hexJSON(t, probes)
	taken, err := l.python(place{machine: target}, "listen", address, list)
	if err != nil {
		t.Fatalf("listeners: %v\n%s", err, taken)
	}
	var silent []probe // what the kernel itself holds, as flannel's VXLAN, and answers to nobody
	mustJSON(t, taken, &silent)
	silent = slices.DeleteFunc(silent, func(p probe) bool { return p.Proto != "udp" })
	t.Logf("%s has open itself: %s", target, strings.TrimSpace(taken))
	defer func() {
		if out, err := l.python(place{machine: target}, "end"); err != nil {
			t.Errorf("listeners: %v\n%s", err, out)
		}
	}()
	l.shell(target, "sudo sh -c 'ip netns add probe && ip link add probe0 type veth peer name eth0 netns probe && ip address add 10.42.255.1/30 dev probe0 && "+
		"ip link set probe0 up && ip -n probe address add 10.42.255.2/30 dev eth0 && ip -n probe link set eth0 up && ip -n probe route add default via 10.42.255.1'")
	defer l.shell(target, "sudo ip netns delete probe")
	places := map[string]place{
		"admin": {}, "outside": {namespace: outside(t, l)}, "server": {machine: "server-1"}, "agent": {machine: "agent-1"},
		"pod": {machine: target, namespace: "probe"},
	}
	var wait sync.WaitGroup
	for name, p := range places {
		wait.Go(func() {
			out, err := l.python(p, "try", address, list)
			var results []string
			if err == nil {
				err = json.Unmarshal([]byte(out), &results)
			}
			if err != nil || len(results) != len(reachable) {
				t.Errorf("from %s: %v\n%s", name, err, out)
				return
			}
			for i, r := range reachable {
				if slices.Contains(silent, r.probe) && results[i] == "nothing" {
					continue // shows neither
				}
				may := strings.Fields(map[string]string{"server": r.server, "agent": r.agent}[role])
				if want := slices.Contains(may, name); answering(results[i]) != want || !want && results[i] != "nothing" {
					t.Errorf("from %s to %s, %s: %s; reachable must be %v", name, target, r.probe, results[i], want)
				}
			}
		})
	}
	wait.Wait()
}

// outside makes a network beyond the sandbox's gateway and returns its namespace.
func outside(t *testing.T, l *lab) string {
	t.Helper()
	const name = "k3lab-e2e-outside"
	s := l.sandbox()
	router := ""
	for line := range strings.Lines(output(t, "ip", "netns", "list")) {
		ns := strings.Fields(line)[0]
		if out, err := exec.Command("ip", "-n", ns, "-o", "address", "show", "br0").Output(); err == nil && strings.Contains(string(out), " "+s.Gateway+"/") {
			router = ns
		}
	}
	if router == "" {
		t.Fatal("the sandbox's network is not found")
	}
	output(t, "ip", "netns", "add", name)
	t.Cleanup(func() { output(t, "ip", "netns", "delete", name) })
	for _, step := range []string{
		"link add eth0 netns " + name + " type veth peer name outside netns " + router,
		"-n " + router + " address add 203.0.113.1/24 dev outside", "-n " + router + " link set outside up",
		"-n " + name + " address add 203.0.113.2/24 dev eth0", "-n " + name + " link set eth0 up",
		"-n " + name + " route add default via 203.0.113.1",
	} {
		output(t, "ip", strings.Fields(step)...)
	}
	return name
}

// foreignTables are the rules of all machines but k3lab's own, as nft lists them.
func foreignTables(l *lab) map[string]string {
	l.t.Helper()
	out := map[string]string{}
	for _, m := range []string{"server-1", "agent-1"} {
		out[m] = l.shell(m, "sudo sh -c 'nft list tables | grep -v \"inet k3lab$\" | while read -r _ t; do nft --stateless list table $t 2>/dev/null; done; true'")
	}
	return out
}

// powerLost proves that a guarded change nobody has confirmed is gone when the
// machine comes back.
func powerLost(t *testing.T, l *lab) {
	const path = "/etc/k3lab-probe"
	l.shell("agent-2", "echo old | sudo tee "+path)
	request := `{"state":{"machine":"agent-2","resources":[{"guarded":true,"file":{"path":"` + path + `","content":"new\n","mode":420}}]},"only":null}`
	out := l.shell("agent-2", "echo '"+request+"' | sudo sh -c '/var/lib/k3lab/converger/* apply'")
	if !strings.Contains(out, `"confirm":`) {
		t.Fatalf("no confirmation is asked for: %s", out)
	}
	if got := l.shell("agent-2", "cat "+path+"; systemctl is-active k3lab-guard; sudo sync"); got != "new\nactive\n" {
		t.Fatalf("got %q", got)
	}
	api := newProxmox(t, l.sandbox())
	api.power("agent-2", "stop", "stopped")
	api.power("agent-2", "start", "running")
	eventually(t, time.Minute, "agent-2 answers", func() bool { _, err := l.run("-C", l.dir, "ssh", "agent-2", "--", "true"); return err == nil })
	if got := l.shell("agent-2", "cat "+path+"; ls /etc/systemd/system/k3lab-guard.service 2>&1; sudo nft list chain inet k3lab input | grep -c policy; sudo rm "+path); got !=
		"old\nls: cannot access '/etc/systemd/system/k3lab-guard.service': No such file or directory\n1\n" {
		t.Errorf("after the power was back: %q", got)
	}
	eventually(t, 2*time.Minute, "the cluster is whole again", func() bool { _, err := l.run("-C", l.dir, "status"); return err == nil })
}

// shell runs a line of shell on a machine.
func (l *lab) shell(machine, line string) string {
	l.t.Helper()
	return withoutBanner(l.exit(0, "ssh", machine, "--", line))
}

func (l *lab) addressOf(t *testing.T, machine string) string {
	t.Helper()
	return strings.TrimSpace(l.shell(machine, "hostname -I | cut -d' ' -f1"))
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
