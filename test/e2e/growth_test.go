package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestBenchGrowth times how long finding nothing to change takes as a lab grows:
// 3 servers and ever more agents, all of them machines with systemd, SSH and K3s.
// The ratio is that of k3lab's time for the machines to ansible-playbook's.
func TestBenchGrowth(t *testing.T) {
	if os.Getenv("K3LAB_BENCH") == "" {
		t.Skip("K3LAB_BENCH is not set (try: make bench)")
	}
	l := newLab(t, "k3lab-growth", "ha")
	fmt.Printf("\n%-10s%14s%16s%16s%20s%10s\n", "machines", "up, changing", "up, no change", "of it machines", "ansible-playbook", "ratio")
	for _, n := range []int{5, 20, 50} {
		l.grow(t, n)
		began := time.Now()
		l.exit(0, "up", "--yes", "--timeout", "20m")
		grown := time.Since(began)
		up := l.median(func() { l.exit(0, "up", "--yes") })
		// What Ansible does too: without Terraform's own plan, which runs beside.
		machines := l.median(func() { l.exit(0, "up", "--yes", "--layer", "platform") })
		site := l.median(func() { l.playbook(t, "site.yaml") })
		fmt.Printf("%-10d%13.1fs%15.2fs%15.2fs%19.2fs%10.2f\n", n, grown.Seconds(), up.Seconds(), machines.Seconds(), site.Seconds(), machines.Seconds()/site.Seconds())
	}
}

// median of three runs.
func (l *lab) median(f func()) time.Duration {
	var took []time.Duration
	for range 3 {
		began := time.Now()
		f()
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[1]
}

// grow adds agents to the settings until there are n machines. They claim little
// memory: the hypervisors of a sandbox have only so much.
func (l *lab) grow(t *testing.T, n int) {
	t.Helper()
	const servers, given = 3, 2
	box := l.sandbox()
	cidr := netip.MustParsePrefix(box.CIDR)
	var agents strings.Builder
	for i := given + 1; servers+i <= n; i++ {
		ip := cidr.Masked().Addr().As4()
		ip[3] = byte(20 + i)
		fmt.Fprintf(&agents, "  agent-%d:\n    role: agent\n    hypervisor: %s\n    vmid: %d\n    ip: %s\n    memory_mib: 1024\n",
			i, box.Hypervisors[i%len(box.Hypervisors)].Name, 210+i, netip.AddrFrom4(ip))
	}
	file := filepath.Join(l.dir, "terraform/vars/nodes.yaml")
	text := readFile(t, file)
	head, rest, found := strings.Cut(text, "\n# What else a machine can have:")
	if !found {
		t.Fatalf("nodes.yaml is another now:\n%s", text)
	}
	before, _, _ := strings.Cut(head, "  agent-3:\n")
	writeFile(t, file, strings.TrimRight(before, "\n")+"\n"+agents.String()+"\n# What else a machine can have:"+rest)
}
