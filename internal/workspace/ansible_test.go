package workspace_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/desired"
	"github.com/k3lab/k3lab/internal/workspace"
)

// inAnsible writes a workspace and returns a function that runs a program in its
// folder of playbooks.
func inAnsible(t *testing.T) (dir string, run func(program string, args ...string) string) {
	t.Helper()
	user(t)
	root := t.TempDir()
	mustInit(t, at(t, root), workspace.Options{Example: "ha", LabName: "home", PublicKeys: []string{publicKey}})
	dir = filepath.Join(root, "ansible")
	return dir, func(program string, args ...string) string {
		t.Helper()
		path, err := exec.LookPath(program)
		if err != nil {
			t.Skipf("%s is not installed (try: hack/prereqs)", program)
		}
		cmd := exec.Command(path, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "ANSIBLE_NOCOLOR=1", "NO_COLOR=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s %v: %v\n%s", program, args, err, out)
		}
		return string(out)
	}
}

// TestPlaybooksAreLinted: no finding in ansible-lint's strictest profile.
func TestPlaybooksAreLinted(t *testing.T) {
	_, run := inAnsible(t)
	run("ansible-lint", "--offline", "--strict", "--profile", "production")
}

// TestSiteHasARoleForEachTag, in the order in which k3lab itself converges them.
func TestSiteHasARoleForEachTag(t *testing.T) {
	dir, run := inAnsible(t)
	text, err := os.ReadFile(filepath.Join(dir, "site.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var plays []struct {
		Roles []struct {
			Role string
			Tags []string
		}
	}
	if err := yaml.Unmarshal(text, &plays); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range plays[0].Roles {
		if len(r.Tags) == 0 || r.Tags[0] != r.Role {
			t.Errorf("role %s has the tags %v", r.Role, r.Tags)
		}
		got = append(got, r.Tags...)
	}
	if d := cmp.Diff(desired.Tags(), got); d != "" {
		t.Errorf("tags of the roles (-want +got):\n%s", d)
	}
	inventory := "[server]\nserver-1\n[agent]\nagent-1\n[k3s_cluster:children]\nserver\nagent\n"
	if err := os.MkdirAll(filepath.Join(dir, "inventory"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "inventory/hosts.ini"), []byte(inventory), 0o600); err != nil {
		t.Fatal(err)
	}
	run("ansible-playbook", "--syntax-check", "site.yaml")
}
