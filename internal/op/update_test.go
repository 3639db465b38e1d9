package op

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/cluster"
	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/fleet"
	"github.com/k3lab/k3lab/internal/remote"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// rolled is a cluster whose machines are updated: its archives, machines, nodes
// and datastore members in one.
type rolled struct {
	mu       sync.Mutex
	names    []string
	newer    map[string]bool   // has newer packages in its archive
	asks     map[string]string // what those packages ask to be rebooted for
	reason   map[string]string // to reboot now
	boots    map[string]int
	cordoned map[string]string // node → by whom
	silent   map[string]bool   // its datastore member does not vote
	off      map[string]bool   // does not answer
	hangs    map[string]bool   // does not reboot
	kept     map[string]error  // why its pods do not leave
	broken   map[string]error  // why its node does not become whole
	api      string            // "ok", or why it does not answer
	log      []string
	working  map[string]bool // between the first and the last word on it
	most     int             // that were at it at once
}

func newRolled(names ...string) *rolled {
	r := &rolled{names: names, api: "ok"}
	r.newer, r.silent, r.off, r.hangs, r.working = map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	r.asks, r.reason, r.cordoned = map[string]string{}, map[string]string{}, map[string]string{}
	r.boots, r.kept, r.broken = map[string]int{}, map[string]error{}, map[string]error{}
	return r
}

func (r *rolled) does(machine, what string) {
	r.log = append(r.log, machine+": "+what)
	r.working[machine] = true
	r.most = max(r.most, len(r.working))
}

func (r *rolled) Runner(_ context.Context, machine string) (remote.Runner, error) {
	if r.off[machine] {
		return nil, fault.New(fault.Unreachable, machine, "", "%w", remote.ErrNoAnswer)
	}
	return nil, nil //nolint:nilnil // connecting is all that is asked
}

func (r *rolled) Facts(_ context.Context, machine string, q converger.FactsRequest) (converger.Facts, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := converger.Facts{BootID: fmt.Sprintf("%s-%d", machine, r.boots[machine])}
	if q.Reboot {
		f.Reboot = r.reason[machine]
	}
	return f, nil
}

func (r *rolled) Plan(_ context.Context, machine string, _ converger.Request) ([]converger.Change, error) {
	if !r.newer[machine] {
		return nil, nil
	}
	return []converger.Change{{Resource: "packages", Action: "update", Detail: "1 to a newer version"}}, nil
}

func (r *rolled) Apply(_ context.Context, _ step.Writer, machine string, q converger.Request) ([]converger.Change, error) {
	r.mu.Lock()
	r.does(machine, "install "+strings.Join(q.Only, " "))
	r.newer[machine], r.reason[machine] = false, r.asks[machine]
	r.mu.Unlock()
	time.Sleep(5 * time.Millisecond) // long enough for another to be seen beside it
	return nil, nil
}

func (r *rolled) Push(context.Context, step.Writer, string, fleet.Supply) error {
	return errors.New("nothing is pushed")
}

func (r *rolled) Output(_ context.Context, machine string, args ...string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.does(machine, strings.Join(args, " "))
	if !r.hangs[machine] {
		r.boots[machine]++
		r.reason[machine] = ""
	}
	return nil, fault.New(fault.Unreachable, machine, "", "%w", remote.ErrLost)
}

func (r *rolled) Cordoned(_ context.Context, node string) (bool, string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	by, ok := r.cordoned[node]
	if by == "somebody" {
		by = ""
	}
	return ok, by, nil
}

func (r *rolled) Elsewhere(_ context.Context, node string) (bool, error) {
	return slices.ContainsFunc(r.names, func(n string) bool { return n != node && r.cordoned[n] == "" }), nil
}

func (r *rolled) Cordon(_ context.Context, _ step.Writer, node, operation string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.does(node, "cordon")
	if _, already := r.cordoned[node]; !already {
		r.cordoned[node] = operation
	}
	return nil
}

func (r *rolled) Uncordon(_ context.Context, _ step.Writer, node string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cordoned[node] == updateName {
		r.does(node, "uncordon")
		delete(r.cordoned, node)
	}
	delete(r.working, node)
	return nil
}

func (r *rolled) Drain(_ context.Context, _ step.Writer, node string, _ cluster.DrainOptions) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept[node] == nil {
		r.does(node, "drain")
	}
	return r.kept[node]
}

func (r *rolled) look(context.Context) *cluster.Health {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := &cluster.Health{API: r.api}
	for _, name := range r.names {
		m := cluster.Member{Name: name, Reachable: true, Unit: cluster.UnitState{Active: "active"}}
		if strings.HasPrefix(name, "server") {
			h.Servers++
			m.Datastore = &cluster.Datastore{Answers: !r.silent[name], HasLeader: !r.silent[name]}
			if !r.silent[name] {
				h.Voters++
			}
		}
		h.Members = append(h.Members, m)
	}
	return h
}

// run updates machines as UpdateOS does.
func (r *rolled) run(t *testing.T, atOnce int, names ...string) (planned []string, made []step.Change, err error) {
	t.Helper()
	u := &update{
		machines: r, look: r.look, opts: UpdateOptions{AtOnce: atOnce, Timeout: 30 * time.Millisecond},
		api: func(context.Context) (nodeAPI, error) {
			if r.api != "ok" {
				return nil, errors.New(r.api)
			}
			return r, nil
		},
		whole: func(_ context.Context, machine, boot string) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.does(machine, strings.TrimSpace("whole "+boot))
			return r.broken[machine]
		},
	}
	for _, name := range names {
		role := config.RoleAgent
		if strings.HasPrefix(name, "server") {
			role = config.RoleServer
		}
		u.nodes = append(u.nodes, &config.Machine{Name: name, Role: role})
	}
	seq := step.Sequence{u}
	plan, err := seq.Plan(t.Context(), report.Discard)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range plan.Changes() {
		planned = append(planned, strings.TrimSpace(c.Object+": "+string(c.Action)+" "+c.Resource+" "+c.Detail+c.Deferred))
	}
	err = seq.Apply(t.Context(), report.Discard, plan)
	return planned, u.made, err
}

var everyone = []string{"server-1", "server-2", "server-3", "agent-1", "agent-2"}

// boot is all that is done to a machine that reboots.
func boot(machine string, packages bool) []string {
	var out []string
	if packages {
		out = append(out, machine+": install packages")
	}
	return append(out, machine+": cordon", machine+": drain", machine+": systemctl --no-block reboot", machine+": whole "+machine+"-1", machine+": uncordon")
}

func TestARollGoesFromAgentsToServersAndRebootsWhatNeedsIt(t *testing.T) {
	r := newRolled(everyone...)
	r.newer["server-1"], r.asks["server-1"] = true, "asked for by dbus"
	r.newer["agent-2"] = true
	r.reason["server-3"] = "libc was installed since it booted"
	r.newer["agent-1"], r.asks["agent-1"] = true, "asked for by linux-base"
	r.cordoned["server-3"] = "somebody"
	planned, made, err := r.run(t, 1, everyone...)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"server-1: update packages 1 to a newer version", "server-1: restart machine it reboots if the packages ask for it",
		"server-3: restart machine libc was installed since it booted",
		"agent-1: update packages 1 to a newer version", "agent-1: restart machine it reboots if the packages ask for it",
		"agent-2: update packages 1 to a newer version", "agent-2: restart machine it reboots if the packages ask for it",
	}
	if d := cmp.Diff(want, planned); d != "" {
		t.Errorf("planned (-want +got):\n%s", d)
	}
	want = slices.Concat(boot("agent-1", true), []string{"agent-2: install packages", "agent-2: whole"}, boot("server-1", true),
		slices.DeleteFunc(boot("server-3", false), func(s string) bool { return s == "server-3: uncordon" }))
	if d := cmp.Diff(want, r.log); d != "" {
		t.Errorf("done (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string]string{"server-3": "somebody"}, r.cordoned); d != "" {
		t.Errorf("cordoned (-want +got):\n%s", d)
	}
	var short []string
	for _, c := range made {
		short = append(short, strings.TrimSpace(c.Object+": "+c.Resource+" "+c.Deferred))
	}
	if d := cmp.Diff([]string{"agent-1: packages", "agent-1: machine", "agent-2: packages", "server-1: packages", "server-1: machine", "server-3: machine"}, short); d != "" {
		t.Errorf("made (-want +got):\n%s", d)
	}
	r.log = nil
	if planned, made, err := r.run(t, 1, everyone...); err != nil || planned != nil || made != nil || r.log != nil {
		t.Errorf("again: planned %v, made %v, did %v, %v", planned, made, r.log, err)
	}
}

func TestAgentsAreUpdatedInBatchesAndServersAlone(t *testing.T) {
	names := []string{"server-1", "server-2", "server-3", "agent-1", "agent-2", "agent-3", "agent-4"}
	for name, test := range map[string]struct {
		machines     []string
		atOnce, most int
	}{
		"servers, three at once asked for": {names[:3], 3, 1},
		"agents, one by one":               {names[3:], 1, 1},
		"agents, two at once":              {names[3:], 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRolled(names...)
			for _, m := range names {
				r.newer[m] = true
			}
			if _, _, err := r.run(t, test.atOnce, test.machines...); err != nil || r.most != test.most {
				t.Errorf("%d at once, want %d: %v", r.most, test.most, err)
			}
			for _, m := range names {
				if r.newer[m] == slices.Contains(test.machines, m) {
					t.Errorf("%s: has newer packages: %v", m, r.newer[m])
				}
			}
		})
	}
}

func TestAFailureEndsTheRollAndTheNextOneGoesOn(t *testing.T) {
	const end = "No other machine is updated: when that is mended, k3lab os update goes on from here"
	first := boot("agent-1", true)
	tests := map[string]struct {
		breaks, mends func(r *rolled)
		want          string
		kind          fault.Kind
		did           []string // to agent-1
		then          []string
	}{
		"a budget keeps pods": {
			breaks: func(r *rolled) {
				r.kept["agent-1"] = fault.New(fault.Failed, "agent-1", "kubectl", "not drained within 5m")
			},
			mends: func(r *rolled) { r.kept["agent-1"] = nil },
			want:  "agent-1: not drained within 5m (try: kubectl)\nagent-1 stays cordoned. " + end, kind: fault.Failed,
			did: first[:2], then: boot("agent-1", false),
		},
		"it does not reboot": {
			breaks: func(r *rolled) { r.hangs["agent-1"] = true },
			mends:  func(r *rolled) { r.hangs["agent-1"] = false },
			want:   "agent-1: has not rebooted within 30ms (try: k3lab ssh agent-1 -- systemctl list-jobs)\nagent-1 stays cordoned. " + end, kind: fault.Failed,
			did: first[:4], then: boot("agent-1", false),
		},
		"its node does not become whole": {
			breaks: func(r *rolled) {
				r.broken["agent-1"] = fault.New(fault.Unhealthy, "agent-1", "", "node is not ready")
			},
			mends: func(r *rolled) { r.broken["agent-1"] = nil },
			want:  "agent-1: node is not ready\nagent-1 stays cordoned. " + end, kind: fault.Unhealthy,
			did: first[:5], then: []string{"agent-1: whole", "agent-1: uncordon"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRolled(everyone...)
			r.newer["agent-1"], r.asks["agent-1"] = true, "asked for by dbus"
			r.newer["agent-2"], r.newer["server-1"] = true, true
			test.breaks(r)
			_, _, err := r.run(t, 1, everyone...)
			if err == nil || err.Error() != test.want || fault.KindOf(err) != test.kind {
				t.Errorf("error, kind %d:\n%v\nwant, kind %d:\n%s", fault.KindOf(err), err, test.kind, test.want)
			}
			if d := cmp.Diff(test.did, r.log); d != "" {
				t.Errorf("done (-want +got):\n%s", d)
			}
			test.mends(r)
			r.log = nil
			if _, _, err := r.run(t, 1, everyone...); err != nil {
				t.Fatal(err)
			}
			then := append(slices.Clone(test.then), "agent-2: install packages", "agent-2: whole", "server-1: install packages", "server-1: whole")
			if d := cmp.Diff(then, r.log); d != "" {
				t.Errorf("done by the next (-want +got):\n%s", d)
			}
		})
	}
}

func TestNoMachineIsTakenAwayThatOthersWouldMiss(t *testing.T) {
	const end = "\nNo other machine is updated: when that is mended, k3lab os update goes on from here"
	tests := map[string]struct {
		machine string
		set     func(r *rolled)
		want    string
	}{
		"a server, while another does not vote": {"server-1", func(r *rolled) { r.silent["server-3"] = true },
			"server-1: is not touched while another server does not vote: server-3 (its datastore member does not answer) (try: k3lab status)" + end},
		"a server that does not vote itself":       {"server-1", func(r *rolled) { r.silent["server-1"] = true }, ""},
		"an agent, while one server does not vote": {"agent-1", func(r *rolled) { r.silent["server-3"] = true }, ""},
		"an agent, without quorum": {"agent-1", func(r *rolled) { r.silent["server-3"], r.silent["server-1"] = true, true },
			"agent-1: is not touched while the datastore has no quorum: 1 of 3 servers vote (try: k3lab status)" + end},
		"without an API": {"agent-1", func(r *rolled) { r.api = "connection refused" },
			"api: machines are updated only while the cluster answers: connection refused (try: k3lab status)"},
		"a machine that does not answer": {"agent-1", func(r *rolled) { r.off["agent-1"] = true }, "agent-1: no answer in time"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRolled(everyone...)
			r.newer[test.machine] = true
			test.set(r)
			_, _, err := r.run(t, 1, test.machine)
			if test.want == "" {
				if err != nil || len(r.log) != 2 {
					t.Errorf("%v: %v", r.log, err)
				}
				return
			}
			if err == nil || err.Error() != test.want || r.log != nil {
				t.Errorf("did %v, error:\n%v\nwant:\n%s", r.log, err, test.want)
			}
		})
	}
}

// TestTheOnlyNodeIsNotDrained: its pods could go nowhere.
func TestTheOnlyNodeIsNotDrained(t *testing.T) {
	r := newRolled("server-1")
	r.reason["server-1"] = "asked for by dbus"
	if _, _, err := r.run(t, 1, "server-1"); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"server-1: systemctl --no-block reboot", "server-1: whole server-1-1"}, r.log); d != "" {
		t.Errorf("done (-want +got):\n%s", d)
	}
}
