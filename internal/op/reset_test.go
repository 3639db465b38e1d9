package op

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// resetting is a cluster whose machines are reset.
type resetting struct {
	*rolled
	there map[string]bool // K3s, on the machine
	known map[string]bool // by the cluster
}

func newResetting(names ...string) *resetting {
	r := &resetting{rolled: newRolled(names...), there: map[string]bool{}, known: map[string]bool{}}
	for _, n := range names {
		r.there[n], r.known[n] = true, true
	}
	return r
}

func (r *resetting) Plan(_ context.Context, machine string, _ converger.Request) ([]converger.Change, error) {
	if !r.there[machine] {
		return nil, nil
	}
	return []converger.Change{{Resource: "unit k3s", Action: "stop"}}, nil
}

func (r *resetting) Apply(_ context.Context, _ step.Writer, machine string, q converger.Request) ([]converger.Change, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, machine+": "+strings.Join(q.Only, " "))
	r.there[machine] = false
	return nil, nil
}

func (r *resetting) Knows(_ context.Context, node string) (bool, error) { return r.known[node], nil }

func (r *resetting) Forget(_ context.Context, _ step.Writer, node string) error {
	if r.there[node] {
		return errors.New(node + " is forgotten while its K3s runs, and would come back")
	}
	r.log = append(r.log, "forget "+node)
	r.known[node] = false
	return nil
}

func (r *resetting) run(t *testing.T, kubeconfig string, names ...string) ([]string, error) {
	t.Helper()
	of := func(names []string) []*config.Machine {
		var out []*config.Machine
		for _, n := range names {
			role := config.RoleAgent
			if strings.HasPrefix(n, "server") {
				role = config.RoleServer
			}
			out = append(out, &config.Machine{Name: n, Role: role, Enabled: true})
		}
		return out
	}
	api := func(context.Context) (forgetting, error) {
		if r.api != "ok" {
			return nil, errors.New(r.api)
		}
		return r, nil
	}
	s := &reset{lab: &config.Lab{Machines: of(r.names)}, nodes: of(names), machines: r, look: r.look, api: api, wait: api}
	seq := step.Sequence{s, forgotten{s, kubeconfig}}
	plan, err := seq.Plan(t.Context(), report.Discard)
	if err != nil {
		return nil, err
	}
	var planned []string
	for _, c := range plan.Changes() {
		planned = append(planned, c.Object+": "+string(c.Action)+" "+c.Resource)
	}
	return planned, seq.Apply(t.Context(), report.Discard, plan)
}

func TestNodesAreResetAndForgotten(t *testing.T) {
	r := newResetting(everyone...)
	planned, err := r.run(t, "", "server-2", "agent-1")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"server-2: stop unit k3s", "agent-1: stop unit k3s", "server-2: delete node", "agent-1: delete node"}, planned); d != "" {
		t.Errorf("planned (-want +got):\n%s", d)
	}
	slices.Sort(r.log[:2]) // both at once
	if d := cmp.Diff([]string{"agent-1: unit k3s", "server-2: unit k3s", "forget server-2", "forget agent-1"}, r.log); d != "" {
		t.Errorf("done (-want +got):\n%s", d)
	}
	r.silent["server-2"] = true
	r.known["agent-1"] = true // interrupted before it was forgotten
	if planned, err := r.run(t, "", "server-2", "agent-1"); err != nil || !slices.Equal(planned, []string{"agent-1: delete node"}) {
		t.Errorf("after an interruption: %v, %v", planned, err)
	}
	if planned, err := r.run(t, "", "server-2", "agent-1"); err != nil || planned != nil {
		t.Errorf("again: %v, %v", planned, err)
	}
}

func TestTheWholeLabIsReset(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newResetting(everyone...)
	r.api = "connection refused" // not needed: nobody is left to be told
	planned, err := r.run(t, kubeconfig, everyone...)
	if err != nil || len(planned) != 6 || len(r.log) != 5 {
		t.Errorf("planned %v, did %v, %v", planned, r.log, err)
	}
	if _, err := os.Stat(kubeconfig); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the kubeconfig of a cluster that is no more: %v", err)
	}
	if planned, err := r.run(t, kubeconfig, everyone...); err != nil || planned != nil {
		t.Errorf("again: %v, %v", planned, err)
	}
}

func TestAResetThatTheOthersWouldMissIsRefused(t *testing.T) {
	tests := map[string]struct {
		nodes []string
		set   func(r *resetting)
		want  string
	}{
		"two of three servers": {[]string{"server-1", "server-2"}, func(*resetting) {},
			"server-1, server-2: without it 1 of 3 servers vote, and the datastore needs 2 (try: k3lab status; or reset the whole lab, without --node)"},
		"all servers, but not the agents": {[]string{"server-1", "server-2", "server-3"}, func(*resetting) {},
			"server-1, server-2, server-3: without it 0 of 3 servers vote, and the datastore needs 2 (try: k3lab status; or reset the whole lab, without --node)"},
		"one of three, while another is down": {[]string{"server-1"}, func(r *resetting) { r.silent["server-3"] = true },
			"server-1: without it 1 of 3 servers vote, and the datastore needs 2 (try: k3lab status; or reset the whole lab, without --node)"},
		"the one that is down": {[]string{"server-3"}, func(r *resetting) { r.silent["server-3"] = true }, ""},
		"an agent, without an API": {[]string{"agent-1"}, func(r *resetting) { r.api = "connection refused" },
			"api: single nodes are reset only while the cluster can be told to forget them: connection refused (try: k3lab status; or reset the whole lab, without --node)"},
		"a machine that does not answer": {[]string{"agent-1"}, func(r *resetting) { r.off["agent-1"] = true }, "agent-1: no answer in time"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := newResetting(everyone...)
			test.set(r)
			_, err := r.run(t, "", test.nodes...)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || err.Error() != test.want || r.log != nil {
				t.Errorf("did %v, error:\n%v\nwant:\n%s", r.log, err, test.want)
			}
		})
	}
}
