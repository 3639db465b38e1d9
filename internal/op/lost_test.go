package op

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/desired"
	"github.com/k3lab/k3lab/internal/report"
)

// oneIsNew is a cluster that runs, whose machine of that name is a new one.
func oneIsNew(name string) *world {
	w := newWorld()
	w.nodes = map[string]string{}
	for n, f := range w.facts {
		w.nodes[n] = strings.TrimSuffix(f.Interfaces["eth0"][0], "/24")
		if n == name {
			continue
		}
		f.Paths[desired.NodePasswordPath] = true
		if strings.HasPrefix(n, "server") {
			w.member(n)
		} else {
			f.Units[desired.AgentUnit] = converger.UnitFact{Active: "active"}
		}
		w.drift[n] = converger.Change{}
	}
	return w
}

func TestALostMachineIsForgottenBeforeTheNewOneJoins(t *testing.T) {
	for name, want := range map[string][]string{
		"server-1": {"forget server-1", "start server-1 server: https://192.0.2.12:6443"},
		"server-3": {"forget server-3", "start server-3 server: https://192.0.2.11:6443"},
		"agent-1":  {"forget agent-1", "start agent-1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := oneIsNew(name)
			plan, err := run(t, w)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, w.log); d != "" {
				t.Errorf("applied (-want +got):\n%s", d)
			}
			if all := plan.Changes(); len(all) == 0 || !cmp.Equal(all[0], forgetsFirst(w.step(t).lab.Machine(name))) {
				t.Errorf("the plan does not begin with it: %+v", all)
			}
		})
	}
}

func TestNothingIsForgottenWithoutNeed(t *testing.T) {
	for name, change := range map[string]func(*world){
		"the cluster does not know it":       func(w *world) { delete(w.nodes, "server-3") },
		"the machine has been this node":     func(w *world) { w.facts["server-3"].Paths[desired.NodePasswordPath] = true },
		"its system is new, its data is not": func(w *world) { w.facts["server-3"].Paths[desired.DatastorePath] = true },
		"K3s runs on it":                     func(w *world) { w.facts["server-3"].Units[desired.ServerUnit] = converger.UnitFact{Active: "active"} },
		"the cluster cannot be asked":        func(w *world) { w.noAPI = true },
		"K3s is up nowhere, so it is not asked": func(w *world) {
			for _, s := range []string{"server-1", "server-2"} {
				w.facts[s].Units[desired.ServerUnit] = converger.UnitFact{Active: "failed"}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := oneIsNew("server-3")
			change(w)
			if _, err := run(t, w); err != nil {
				t.Fatal(err)
			}
			if slices.Contains(w.log, "forget server-3") {
				t.Errorf("it was forgotten: %q", w.log)
			}
		})
	}
}

// TestANodeElsewhereIsNotForgotten: the machine that has the name may still run.
func TestANodeElsewhereIsNotForgotten(t *testing.T) {
	w := oneIsNew("server-3")
	w.nodes["server-3"] = "192.0.2.99"
	_, err := w.step(t).Plan(t.Context(), report.Discard)
	want := "server-3: the cluster has a node of that name at 192.0.2.99, and this machine at 192.0.2.13 is a new one " +
		"(try: kubectl delete node server-3, when that machine is gone; or give this one another name)"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
