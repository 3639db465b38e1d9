package infra_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/infra"
)

// TestByHand runs terraform in the workspace as a user does, with what Env
// exports and nothing else.
func TestByHand(t *testing.T) {
	r := newRig(t)
	r.mustUp()
	env, err := infra.Env(r.options())
	if err != nil {
		t.Fatal(err)
	}
	binary := terraform(t)
	for _, args := range [][]string{{"plan", "-detailed-exitcode", "-input=false"}, {"validate"}, {"fmt", "-check", "-recursive"}} {
		cmd := exec.CommandContext(t.Context(), binary, append([]string{"-chdir=" + filepath.Join(r.dir, "terraform")}, args...)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
		for name, value := range env {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		cmd.Dir = t.TempDir()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("terraform %s: %v\n%s", args[0], err, out)
		}
	}
}

// TestSecrets runs everything through a wrapper that notes how terraform is
// called, and looks for the token where it must not be.
func TestSecrets(t *testing.T) {
	r := newRig(t)
	notes := filepath.Join(t.TempDir(), "notes")
	r.binary = wrapper(t, notes)
	r.mustUp()
	first := read(t, notes)
	if err := os.Remove(notes); err != nil {
		t.Fatal(err)
	}
	if again, err := r.plan(); err != nil || len(again) > 0 {
		t.Fatalf("planned again: %v, %v", again, err)
	}
	if diff := cmp.Diff([]string{"version", "plan"}, commands(read(t, notes))); diff != "" {
		t.Errorf("commands of a plan without changes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"version", "init", "plan", "show", "state", "apply"}, commands(first)); diff != "" {
		t.Errorf("commands of the first run (-want +got):\n%s", diff)
	}
	secret := strings.Split(administrator, "=")[1]
	places := map[string]string{"arguments": first}
	err := filepath.WalkDir(r.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".sim" || d.Name() == "providers") {
			return filepath.SkipDir
		}
		if d.Type().IsRegular() {
			places[path] = read(t, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for place, text := range places {
		if strings.Contains(text, secret) {
			t.Errorf("the token is in %s", place)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// wrapper makes a terraform that notes its arguments and environment names.
func wrapper(t *testing.T, notes string) string {
	t.Helper()
	binary := terraform(t)
	path := filepath.Join(t.TempDir(), "terraform")
	script := "#!/bin/sh\nprintf '%s\\n' \"$*\" >>" + notes + "\necho $$ >>" + notes + ".pid\nexec " + binary + " \"$@\"\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func commands(notes string) []string {
	var out []string
	for line := range strings.Lines(notes) {
		out = append(out, strings.Fields(line)[0])
	}
	return out
}
