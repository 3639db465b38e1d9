package op

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/desired"
)

// summary is what another driver needs to know of a node beside its state.
type summary struct {
	Join, BegunBy, Error string
	Running, Unreachable bool
}

func TestDesiredNodes(t *testing.T) {
	const unknown = "how it finds its cluster is not known: server-2 does not answer, and it might hold the cluster that is already there"
	tests := map[string]struct {
		world func(*world)
		nodes []string
		want  map[string]summary
	}{
		"a new cluster": {func(*world) {}, []string{"server-1", "server-2", "agent-1"}, map[string]summary{
			"server-1": {Join: "cluster-init: true", BegunBy: "server-1"},
			"server-2": {Join: "server: https://192.0.2.11:6443", BegunBy: "server-1"},
			"agent-1":  {},
		}},
		"one server alone: the others are asked all the same": {func(w *world) { w.member("server-3") }, []string{"server-1"}, map[string]summary{
			"server-1": {Join: "server: https://192.0.2.13:6443"},
		}},
		"a cluster that runs": {func(w *world) { w.member("server-1"); w.member("server-2") }, []string{"server-1", "agent-1"}, map[string]summary{
			"server-1": {Join: "server: https://192.0.2.11:6443", Running: true},
			"agent-1":  {},
		}},
		"a server is off": {func(w *world) { w.off["server-2"] = true }, []string{"server-1", "server-2", "agent-1"}, map[string]summary{
			"server-1": {Error: unknown},
			"server-2": {Error: "ssh: no answer in time: no route to host", Unreachable: true},
			"agent-1":  {},
		}},
		"a server is off, another has the datastore": {func(w *world) { w.off["server-2"] = true; w.member("server-1") }, []string{"server-1", "server-3"}, map[string]summary{
			"server-1": {Join: "server: https://192.0.2.11:6443", Running: true},
			"server-3": {Join: "server: https://192.0.2.11:6443"},
		}},
		"an agent needs no server": {func(w *world) { w.off["server-1"], w.off["server-2"], w.off["server-3"] = true, true, true }, []string{"agent-1"},
			map[string]summary{"agent-1": {}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			test.world(w)
			c := w.step(t)
			c.seen = map[string]converger.Facts{}
			var nodes []*config.Machine
			for _, n := range test.nodes {
				nodes = append(nodes, c.lab.Machine(n))
			}
			failed := c.askFor(context.Background(), nodes)
			got := map[string]summary{}
			for _, m := range nodes {
				d := DesiredNode{Node: m.Name}
				err := failed[m.Name]
				if err == nil {
					err = c.node(context.Background(), m, &d)
				}
				if err != nil {
					d.failed(err)
				} else if d.Unit != desired.Unit(m) {
					t.Errorf("%s: unit %s", m.Name, d.Unit)
				}
				got[m.Name] = summary{joins(d.State), d.BegunBy, d.Error, d.Running, d.Unreachable}
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestShownHidesSecretsAndOtherTags(t *testing.T) {
	token := converger.Resource{Tags: []string{"k3s"}, File: &converger.File{Path: "/t", Content: "s3cret", Secret: true}}
	config := converger.Resource{Tags: []string{"k3s"}, File: &converger.File{Path: "/c", Content: "plain"}}
	swap := converger.Resource{Tags: []string{"os"}, Swap: &converger.Swap{Off: true}}
	hidden := converger.Resource{Tags: []string{"k3s"}, File: &converger.File{Path: "/t", Content: "***\n", Secret: true}}
	all := []converger.Resource{swap, token, config}
	tests := map[string]struct {
		opts DesiredOptions
		want []converger.Resource
	}{
		"masked":       {DesiredOptions{}, []converger.Resource{swap, hidden, config}},
		"with secrets": {DesiredOptions{Secrets: true}, all},
		"one tag":      {DesiredOptions{Tags: []string{"k3s"}}, []converger.Resource{hidden, config}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(test.want, shown(all, test.opts)); d != "" {
				t.Error(d)
			}
			if token.File.Content != "s3cret" {
				t.Error("the state itself was changed")
			}
		})
	}
}

func TestUnknownTag(t *testing.T) {
	err := checkTags([]string{"os", "k8s"})
	if want := `there is no tag "k8s" (try: valid: `; err == nil || len(err.Error()) < len(want) || err.Error()[:len(want)] != want {
		t.Errorf("got %v", err)
	}
}
