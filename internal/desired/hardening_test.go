package desired_test

import (
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/desired"
)

// k3sConfig is what the machine's config.yaml says.
func k3sConfig(t *testing.T, l *config.Lab, machine string) map[string]any {
	t.Helper()
	state, err := desired.Node(l, l.Machine(machine), inputs())
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	for _, r := range state.Resources {
		if r.File != nil && r.File.Path == "/etc/rancher/k3s/config.yaml" {
			if err := yaml.Unmarshal([]byte(r.File.Content), &out); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}

func TestUsersSettingsWin(t *testing.T) {
	const argument = "kube-controller-manager-arg"
	tests := map[string]struct {
		key   string
		value any
		want  []any
	}{
		"another flag is added":       {argument, []any{"v=2"}, []any{"terminated-pod-gc-threshold=100", "v=2"}},
		"the same flag replaces":      {argument, []any{"terminated-pod-gc-threshold=5"}, []any{"terminated-pod-gc-threshold=5"}},
		"so it does with dashes":      {argument, []any{"--terminated-pod-gc-threshold=5"}, []any{"--terminated-pod-gc-threshold=5"}},
		"one alone is a list":         {argument, "v=2", []any{"terminated-pod-gc-threshold=100", "v=2"}},
		"a key that appends":          {argument + "+", []any{"v=2"}, []any{"terminated-pod-gc-threshold=100", "v=2"}},
		"a flag that extends":         {argument, []any{"controllers+=x"}, []any{"terminated-pod-gc-threshold=100", "controllers+=x"}},
		"a flag given more than once": {argument, []any{"a=1", "a=2"}, []any{"terminated-pod-gc-threshold=100", "a=1", "a=2"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := lab()
			l.K3s.ServerConfig = map[string]any{tt.key: tt.value}
			got := k3sConfig(t, l, "server-1")
			if d := cmp.Diff(tt.want, got[argument]); d != "" {
				t.Errorf("%s (-want +got):\n%s", argument, d)
			}
			if _, left := got[argument+"+"]; left {
				t.Errorf("%s+ is left", argument)
			}
		})
	}
	t.Run("a plain key replaces", func(t *testing.T) {
		l := lab()
		l.K3s.AgentConfig = map[string]any{"protect-kernel-defaults": false}
		if got := k3sConfig(t, l, "agent-1")["protect-kernel-defaults"]; got != false {
			t.Errorf("protect-kernel-defaults: %v, want false", got)
		}
	})
}

// TestHardeningIsSelectedByEitherTag: K3s does not start without the files its
// settings name.
func TestHardeningIsSelectedByEitherTag(t *testing.T) {
	l := lab()
	state, err := desired.Node(l, l.Machine("server-1"), inputs())
	if err != nil {
		t.Fatal(err)
	}
	tags := map[string][]string{}
	for _, r := range state.Resources {
		tags[r.ID()] = r.Tags
	}
	config := ""
	for _, r := range state.Resources {
		if r.ID() == "file /etc/rancher/k3s/config.yaml" {
			config = r.File.Content
		}
	}
	want := []string{desired.TagHardening, desired.TagK3s}
	for _, id := range []string{
		"file /etc/rancher/k3s/config.yaml", "unit k3s.service", "directory /var/log/k3s",
		"file /etc/rancher/k3s/admission.yaml", "file /etc/rancher/k3s/audit-policy.yaml",
	} {
		if d := cmp.Diff(want, tags[id]); d != "" {
			t.Errorf("%s (-want +got):\n%s", id, d)
		}
		if _, path, _ := strings.Cut(id, " "); strings.HasSuffix(path, "n.yaml") && !strings.Contains(config, path) {
			t.Errorf("config.yaml does not name %s", path)
		}
	}
}
