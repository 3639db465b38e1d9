package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestBench times a fresh up against the floor, in one run on the same machines:
// the floor starts the units that up has written, in the fastest order known and
// nothing else. It prints ratios and judges nothing.
func TestBench(t *testing.T) {
	if os.Getenv("K3LAB_BENCH") == "" {
		t.Skip("K3LAB_BENCH is not set (try: make bench)")
	}
	l := newLab(t, "k3lab-bench", "ha")
	began := time.Now()
	l.exit(0, "up", "--yes")
	total := time.Since(began)
	platform, boot := l.platform(t)

	var nothing []time.Duration
	for range 5 {
		began = time.Now()
		l.exit(0, "up", "--yes")
		nothing = append(nothing, time.Since(began))
	}
	var playbook []time.Duration
	for range 3 {
		began = time.Now()
		l.playbook(t, "site.yaml")
		playbook = append(playbook, time.Since(began))
	}
	wipe(l)
	floor := startInFloorOrder(t, l)

	fmt.Printf("\n%-44s %8.1fs\n", "fresh up, all layers", total.Seconds())
	fmt.Printf("%-44s %8.1fs\n", "  of which until the machines have booted", boot.Seconds())
	fmt.Printf("%-44s %8.1fs\n", "fresh up, platform layer from then on", platform.Seconds())
	fmt.Printf("%-44s %8.1fs\n", "floor: the same units, fastest order known", floor.Seconds())
	fmt.Printf("%-44s %8.2f\n", "platform layer / floor", platform.Seconds()/floor.Seconds())
	for i, d := range nothing {
		fmt.Printf("%-44s %8.1fs\n", fmt.Sprintf("up with nothing to change, run %d", i+1), d.Seconds())
	}
	for i, d := range playbook {
		fmt.Printf("%-44s %8.1fs\n", fmt.Sprintf("ansible-playbook site.yaml, the same, run %d", i+1), d.Seconds())
	}
}

// platform reads from the newest run's journal how long the platform layer took
// from the moment the first machine was worked on, and how long the whole lab was
// only waited for before: infra ends when the VMs are started, not when they
// have booted.
func (l *lab) platform(t *testing.T) (worked, boot time.Duration) {
	t.Helper()
	runs, err := filepath.Glob(filepath.Join(l.dir, ".k3lab/runs/*-up.jsonl"))
	if err != nil || len(runs) == 0 {
		t.Fatalf("no journal: %v", err)
	}
	f, err := os.Open(runs[len(runs)-1])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var from, begun, to time.Time
	for s := bufio.NewScanner(f); s.Scan(); {
		var e struct {
			Time                time.Time
			Kind, Step, Message string
		}
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		switch {
		case e.Kind == "step-started" && e.Step == "Machines and K3s":
			from = e.Time
		case from.IsZero():
		case begun.IsZero() && strings.HasPrefix(e.Message, "copying K3s"):
			begun = e.Time
		case e.Kind == "step-done":
			to = e.Time
		}
	}
	if begun.IsZero() || to.Before(begun) {
		t.Fatal("the journal does not say how long the platform layer took")
	}
	return to.Sub(begun), begun.Sub(from)
}

var nodes = []string{"server-1", "server-2", "server-3", "agent-1", "agent-2"}

func unitOf(machine string) string {
	if strings.HasPrefix(machine, "agent") {
		return "k3s-agent"
	}
	return "k3s"
}

func atOnce(machines []string, f func(machine string)) {
	var wait sync.WaitGroup
	for _, m := range machines {
		wait.Go(func() { f(m) })
	}
	wait.Wait()
}

// wipe takes every machine back to where up began: files and binary are there,
// no cluster is.
func wipe(l *lab) {
	atOnce(nodes, func(m string) { l.onMachine(m, "systemctl", "stop", unitOf(m)) })
	atOnce(nodes, func(m string) {
		l.onMachine(m, "sh", "-c", `'k=/var/lib/rancher/k3s; rm -rf /etc/rancher/node /etc/rancher/k3s/k3s.yaml; `+
			`find $k -mindepth 1 -maxdepth 1 ! -name agent -exec rm -rf {} +; `+
			`find $k/agent -mindepth 1 -maxdepth 1 ! -name etc ! -name images -exec rm -rf {} + || true'`)
	})
}

// startInFloorOrder starts the first server and the agents at once and the other
// servers the moment the first is up, and returns how long it took until the
// cluster was whole.
func startInFloorOrder(t *testing.T, l *lab) time.Duration {
	began := time.Now()
	atOnce([]string{"server-1", "agent-1", "agent-2"}, func(m string) {
		if m == "server-1" {
			l.onMachine(m, "systemctl", "start", "k3s")
			return
		}
		l.onMachine(m, "systemctl", "start", "--no-block", "k3s-agent")
	})
	atOnce([]string{"server-2", "server-3"}, func(m string) { l.onMachine(m, "systemctl", "start", "--no-block", "k3s") })
	// The cluster is a new one, with another CA.
	eventually(t, 5*time.Minute, "the kubeconfig is there", func() bool { _, err := l.run("-C", l.dir, "kubeconfig"); return err == nil })
	eventually(t, 5*time.Minute, "the cluster is whole", func() bool { _, err := l.run("-C", l.dir, "status"); return err == nil })
	return time.Since(began)
}
