package op

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/desired"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
)

// planner is a world that remembers which servers are told to encrypt Secrets.
type planner struct {
	*world
	mu      sync.Mutex
	encrypt map[string]bool
}

func (w *planner) Plan(ctx context.Context, machine string, req converger.Request) ([]converger.Change, error) {
	for _, r := range req.State.Resources {
		if r.File != nil && r.File.Path == "/etc/rancher/k3s/config.yaml" && strings.HasPrefix(machine, "server") {
			w.mu.Lock()
			w.encrypt[machine] = strings.Contains(r.File.Content, "\nsecrets-encryption: true\n")
			w.mu.Unlock()
		}
	}
	return w.world.Plan(ctx, machine, req)
}

type warnings []string

func (w *warnings) Report(e report.Event) {
	if e.Kind == report.Warning {
		*w = append(*w, e.Message)
	}
}

// TestEncryptionStaysAsTheClusterBegan: a cluster that runs without encryption is
// not broken by turning it on, nor one that runs with it by turning it off.
func TestEncryptionStaysAsTheClusterBegan(t *testing.T) {
	all := func(v bool) map[string]bool { return map[string]bool{"server-1": v, "server-2": v, "server-3": v} }
	const warning = "Secrets are not encrypted in the datastore: this cluster was begun without, " +
		"and K3s takes steps of yours to change that (see docs/security.md)"
	tests := map[string]struct {
		wanted    bool
		members   []string
		encrypted []string // of the members: have a configuration
		want      map[string]bool
		warnings  warnings
	}{
		"a new cluster encrypts":                         {wanted: true, want: all(true)},
		"a new cluster does not when told so":            {want: all(false)},
		"a plain cluster stays plain, with a warning":    {true, []string{"server-1", "server-2"}, nil, all(false), warnings{warning}},
		"an encrypted cluster stays so":                  {true, []string{"server-1", "server-2"}, []string{"server-1", "server-2"}, all(true), nil},
		"whatever the settings say":                      {false, []string{"server-2"}, []string{"server-2"}, all(true), nil},
		"one server that was told to begin it is enough": {true, []string{"server-1", "server-2"}, []string{"server-1"}, all(true), nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := &planner{world: newWorld(), encrypt: map[string]bool{}}
			for _, m := range tt.members {
				w.member(m)
			}
			for _, m := range tt.encrypted {
				w.facts[m].Paths[desired.EncryptionPath] = true
			}
			c := w.step(t)
			c.machines, c.lab.Security = w, config.Security{SecretsEncryption: tt.wanted}
			var said warnings
			if _, err := c.Plan(t.Context(), &said); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, w.encrypt); d != "" {
				t.Errorf("told to encrypt (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.warnings, said); d != "" {
				t.Errorf("warnings (-want +got):\n%s", d)
			}
		})
	}
}

func TestWireguardIsRefusedWithoutItsModule(t *testing.T) {
	w := newWorld()
	for name, facts := range w.facts {
		facts.Kernel, facts.Modules = "6.1.0", map[string]bool{desired.WireguardModule: name != "agent-1"}
		w.facts[name] = facts
	}
	c := w.step(t)
	c.lab.K3s.FlannelBackend = "wireguard-native"
	_, err := c.Plan(t.Context(), report.Discard)
	want := "agent-1: its kernel 6.1.0 has no module wireguard, which k3s.flannel_backend: wireguard-native needs"
	if err == nil || !strings.Contains(err.Error(), want) || fault.KindOf(err) != fault.Invalid || strings.Contains(err.Error(), "server-") {
		t.Errorf("got %v, want %s", err, want)
	}
}
