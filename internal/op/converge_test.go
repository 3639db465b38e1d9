package op

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/desired"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/fleet"
	"github.com/k3lab/k3lab/internal/release"
	"github.com/k3lab/k3lab/internal/remote"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/sshkey"
	"github.com/k3lab/k3lab/internal/step"
)

// world is the machines of a lab as far as converging sees them.
type world struct {
	mu      sync.Mutex
	off     map[string]bool             // do not answer
	facts   map[string]converger.Facts  // of those that do
	drift   map[string]converger.Change // what a plan finds; without an entry: the K3s unit is to be started
	log     []string                    // what was applied, in order
	working map[string]bool             // applying now
	most    int                         // servers that were at it at once
	nodes   map[string]string           // what the cluster holds: addresses by name
	noAPI   bool
	vip     config.VIPProvider // of the lab's VIP; empty: it has none
}

func newWorld() *world {
	w := &world{off: map[string]bool{}, facts: map[string]converger.Facts{}, drift: map[string]converger.Change{}, working: map[string]bool{}}
	for name, ip := range map[string]string{"server-1": "192.0.2.11", "server-2": "192.0.2.12", "server-3": "192.0.2.13", "agent-1": "192.0.2.21"} {
		w.facts[name] = converger.Facts{Arch: "amd64", Paths: map[string]bool{}, Units: map[string]converger.UnitFact{}, Interfaces: map[string][]string{"eth0": {ip + "/24"}}}
	}
	return w
}

// member makes a server one that holds the cluster already.
func (w *world) member(name string) {
	w.facts[name].Paths[desired.DatastorePath] = true
	w.facts[name].Units[desired.ServerUnit] = converger.UnitFact{Active: "active"}
}

func (w *world) Knows(_ context.Context, node string) (bool, error) {
	_, known := w.nodes[node]
	return known, nil
}

func (w *world) Address(_ context.Context, node string) (string, error) { return w.nodes[node], nil }

func (w *world) Forget(_ context.Context, _ step.Writer, node string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, "forget "+node)
	return nil
}

func (w *world) Runner(_ context.Context, machine string) (remote.Runner, error) {
	if w.off[machine] {
		return nil, fmt.Errorf("%s: ssh: %w: no route to host", machine, remote.ErrNoAnswer)
	}
	return nil, nil //nolint:nilnil // connecting is all that is asked
}

func (w *world) Facts(ctx context.Context, machine string, _ converger.FactsRequest) (converger.Facts, error) {
	if w.off[machine] {
		<-ctx.Done()
		return converger.Facts{}, fmt.Errorf("%s: ssh: %w: no route to host", machine, remote.ErrNoAnswer)
	}
	return w.facts[machine], nil
}

func (w *world) Plan(_ context.Context, machine string, _ converger.Request) ([]converger.Change, error) {
	if c, ok := w.drift[machine]; ok {
		if c.Action == "" {
			return nil, nil
		}
		return []converger.Change{c}, nil
	}
	return []converger.Change{{Resource: "unit " + unitOf(machine), Action: "start"}}, nil
}

func unitOf(machine string) string {
	if strings.HasPrefix(machine, "server") {
		return desired.ServerUnit
	}
	return desired.AgentUnit
}

func (w *world) Apply(_ context.Context, _ step.Writer, machine string, req converger.Request) ([]converger.Change, error) {
	what := "start"
	if slices.Contains(req.Hold, "unit "+unitOf(machine)) {
		what = "files"
	}
	join := joins(req.State)
	w.mu.Lock()
	w.working[machine] = true
	servers := 0
	for name := range w.working {
		if strings.HasPrefix(name, "server") {
			servers++
		}
	}
	w.most = max(w.most, servers)
	w.mu.Unlock()
	time.Sleep(5 * time.Millisecond) // long enough for another to be seen beside it
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.working, machine)
	w.log = append(w.log, strings.TrimSpace(what+" "+machine+" "+join))
	return nil, nil
}

// joins is the line by which a server finds its cluster.
func joins(state converger.State) string {
	for _, r := range state.Resources {
		if r.File != nil && strings.HasSuffix(r.File.Path, "50-join.yaml") {
			text := strings.TrimSpace(r.File.Content)
			return strings.TrimSpace(text[strings.LastIndex(text, "\n")+1:])
		}
	}
	return ""
}

func (w *world) Push(context.Context, step.Writer, string, fleet.Supply) error { return nil }

func (w *world) step(t *testing.T) *converge {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	lab := &config.Lab{Network: config.Network{CIDR: netip.MustParsePrefix("192.0.2.0/24")}}
	if w.vip != "" {
		lab.Network.VIP, lab.Network.VIPProvider = netip.MustParseAddr("192.0.2.10"), w.vip
	}
	for _, name := range []string{"server-1", "server-2", "server-3", "agent-1"} {
		role := config.RoleServer
		if name == "agent-1" {
			role = config.RoleAgent
		}
		ip, _, _ := strings.Cut(w.facts[name].Interfaces["eth0"][0], "/")
		lab.Machines = append(lab.Machines, &config.Machine{Name: name, Role: role, Enabled: true, Arch: "amd64", IP: netip.MustParseAddr(ip)})
	}
	given := func() (release.File, error) {
		return release.File{Path: "k3s", SHA256: strings.Repeat("0", 64)}, nil
	}
	return &converge{
		lab: lab, machines: w, authorized: func() (sshkey.Keys, error) { return sshkey.Keys{Authorized: []string{"ssh-ed25519 AAAA k3lab"}}, nil }, keyFile: key, timeout: 50 * time.Millisecond,
		supplies: &supplies{token: "t", source: &release.Source{Binary: "k3s"}, found: map[string]func() (release.File, error){"amd64": given}},
		api: func(context.Context) (remembering, error) {
			if w.noAPI {
				return nil, errors.New("no server answers")
			}
			return w, nil
		},
		healthy: func(_ context.Context, machine string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.log = append(w.log, "whole "+machine)
			return nil
		},
	}
}

// run plans and applies the step alone, as the engine does.
func run(t *testing.T, w *world) (step.Plan, error) {
	t.Helper()
	seq := step.Sequence{w.step(t)}
	plan, err := seq.Plan(context.Background(), report.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return plan, seq.Apply(context.Background(), report.Discard, plan)
}

func TestANewClusterIsBegunByOneServerAndJoinedAfterwards(t *testing.T) {
	w := newWorld()
	if _, err := run(t, w); err != nil {
		t.Fatal(err)
	}
	first := slices.Index(w.log, "start server-1 cluster-init: true")
	for _, other := range []string{"server-2", "server-3"} {
		at := slices.Index(w.log, "start "+other+" server: https://192.0.2.11:6443")
		if first < 0 || at < first {
			t.Errorf("%s was not started after server-1 began the cluster: %q", other, w.log)
		}
		if files := slices.Index(w.log, "files "+other+" server: https://192.0.2.11:6443"); files < 0 || files > at {
			t.Errorf("%s got its files only when it was started: %q", other, w.log)
		}
	}
	if !slices.Contains(w.log, "start agent-1") {
		t.Errorf("the agent was not started: %q", w.log)
	}
}

func TestAServerThatDoesNotAnswerMightHoldTheCluster(t *testing.T) {
	w := newWorld()
	w.off["server-2"] = true
	plan, err := run(t, w)
	for _, c := range plan.Changes() {
		if strings.HasPrefix(c.Object, "server") && c.Deferred == "" {
			t.Errorf("%s is not deferred: %+v", c.Object, c)
		}
	}
	want := "K3s was not started: server-2 does not answer, and it might hold the cluster that is already there"
	if err == nil || !strings.Contains(err.Error(), "server-1: "+want) || !errors.Is(err, remote.ErrNoAnswer) {
		t.Errorf("error %v, want %q", err, want)
	}
	for _, l := range w.log {
		if strings.Contains(l, "server") {
			t.Errorf("a server was touched: %q", w.log)
		}
	}
}

func TestTheFirstServerJoinsTheOthersWhenItLostItsDatastore(t *testing.T) {
	w := newWorld()
	for _, s := range []string{"server-2", "server-3"} {
		w.member(s)
		w.drift[s] = converger.Change{}
	}
	w.drift["agent-1"] = converger.Change{}
	if _, err := run(t, w); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"start server-1 server: https://192.0.2.12:6443"}, w.log); d != "" {
		t.Errorf("applied (-want +got):\n%s", d)
	}
}

// TestAgentsJoinByAServerWhereTheVIPIsKeptByPods: pods that are there only when the
// cluster is. Which server that is does not depend on the first one.
func TestAgentsJoinByAServerWhereTheVIPIsKeptByPods(t *testing.T) {
	tests := map[string]struct {
		vip     config.VIPProvider
		machine func(*world)
		want    string
	}{
		"a new cluster":                 {config.VIPKubeVIP, func(*world) {}, "server: https://192.0.2.11:6443"},
		"a cluster that runs":           {config.VIPKubeVIP, func(w *world) { w.member("server-2") }, "server: https://192.0.2.12:6443"},
		"one whose first server is off": {config.VIPKubeVIP, func(w *world) { w.member("server-3"); w.off["server-1"] = true }, "server: https://192.0.2.13:6443"},
		"no server can be asked": {config.VIPKubeVIP, func(w *world) {
			w.off["server-1"], w.off["server-2"], w.off["server-3"] = true, true, true
		}, "server: https://192.0.2.11:6443"},
		"keepalived needs no cluster first": {config.VIPKeepalived, func(*world) {}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.vip = tt.vip
			tt.machine(w)
			_, err := run(t, w)
			if err != nil && !w.off["server-1"] {
				t.Fatal(err)
			}
			i := slices.IndexFunc(w.log, func(line string) bool { return strings.Contains(line, "agent-1") })
			if i < 0 || strings.TrimSpace(strings.SplitAfterN(w.log[i], "agent-1", 2)[1]) != tt.want {
				t.Errorf("want agent-1 %s in %q", tt.want, w.log)
			}
		})
	}
}

func TestServersAreRestartedOneAtATime(t *testing.T) {
	w := newWorld()
	for _, s := range []string{"server-1", "server-2", "server-3"} {
		w.member(s)
		w.drift[s] = converger.Change{Resource: "unit k3s.service", Action: "restart"}
	}
	w.drift["agent-1"] = converger.Change{}
	if _, err := run(t, w); err != nil {
		t.Fatal(err)
	}
	if w.most != 1 || len(w.log) != 6 {
		t.Fatalf("%d servers were restarted at once: %q", w.most, w.log)
	}
	for i := 0; i < len(w.log); i += 2 {
		server, _, _ := strings.Cut(strings.TrimPrefix(w.log[i], "start "), " ")
		if w.log[i+1] != "whole "+server {
			t.Errorf("the next server was restarted before %s was whole: %q", server, w.log)
		}
	}
}

func TestOnlyPlannedChangesAreMade(t *testing.T) {
	known := []step.Change{{Resource: "file /a"}, {Resource: "unit b"}}
	if d := cmp.Diff([]string{"file /a", "unit b"}, only(known)); d != "" {
		t.Errorf("known changes (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"file /a", "unit b"}, only(append(known, step.Change{Resource: nodeID}))); d != "" {
		t.Errorf("with one of the cluster's (-want +got):\n%s", d)
	}
	if got := only(append(known, step.Change{Deferred: "off"})); got != nil {
		t.Errorf("deferred: %v, want everything to be looked at anew", got)
	}
}

func TestAWrongBinaryIsRefusedBeforeAnythingIsMade(t *testing.T) {
	wrong := fault.New(fault.Invalid, "k3s", "", "its SHA-256 is another")
	for name, change := range map[string]func(*world, *converge){
		"nothing is there yet": func(_ *world, c *converge) { c.keyFile += ".not-there" },
		"no machine answers": func(w *world, _ *converge) {
			w.off = map[string]bool{"server-1": true, "server-2": true, "server-3": true, "agent-1": true}
		},
		"all machines answer": func(*world, *converge) {},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			c := w.step(t)
			c.supplies.source.Binary = "k3s"
			c.supplies.found["amd64"] = func() (release.File, error) { return release.File{}, wrong }
			change(w, c)
			if _, err := c.Plan(context.Background(), report.Discard); !errors.Is(err, wrong) || fault.KindOf(err) != fault.Invalid {
				t.Errorf("plan: %v, want %v", err, wrong)
			}
		})
	}
}
