package infra

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func endpoints(names ...string) *config.Lab {
	lab := &config.Lab{}
	for _, name := range names {
		lab.Proxmox.Endpoints = append(lab.Proxmox.Endpoints, config.Endpoint{Name: name})
	}
	return lab
}

func TestProvidersFile(t *testing.T) {
	tests := map[string]*config.Lab{
		"none":    endpoints(),
		"one":     endpoints("home"),
		"two":     endpoints("home", "garage"),
		"awkward": endpoints("9.lab", "a.b", "a_b", "-x"),
	}
	for name, lab := range tests {
		t.Run(name, func(t *testing.T) {
			golden(t, "providers/"+name+".tf", ProvidersFile(lab))
		})
	}
}

func TestStaleProviders(t *testing.T) {
	lab := endpoints("home")
	write := func(text string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, ProvidersPath)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := map[string]struct {
		arrange func(t *testing.T, dir string)
		want    bool
	}{
		"missing":          {func(*testing.T, string) {}, true},
		"as it should be":  {write(ProvidersFile(lab)), false},
		"another endpoint": {write(ProvidersFile(endpoints("garage"))), true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			tt.arrange(t, dir)
			got, err := StaleProviders(dir, lab)
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("stale = %v, want %v", got, tt.want)
			}
		})
	}
}
