package tfprovider_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// newAnsible is the inventory of a lab in a folder with spaces in its name,
// and a function that runs a program of Ansible on it.
func newAnsible(t *testing.T, program string) (*lab, func(args ...string) string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed", program)
	}
	l := newLab(t, "terraform")
	l.apply()
	return l, func(args ...string) string {
		t.Helper()
		cmd := exec.Command(path, append([]string{"-i", l.path("ansible/inventory/hosts.ini")}, args...)...)
		cmd.Dir = t.TempDir() // not the workspace
		cmd.Env = append(os.Environ(), "ANSIBLE_LOCALHOST_WARNING=false", "ANSIBLE_SSH_EXECUTABLE="+l.path("ssh"), "ANSIBLE_NOCOLOR=1")
		out, err := cmd.CombinedOutput()
		if err != nil && program == "ansible-inventory" {
			t.Fatalf("%s %v: %v\n%s", program, args, err, out)
		}
		return string(out)
	}
}

// TestAnsibleReadsTheInventory asks Ansible itself.
func TestAnsibleReadsTheInventory(t *testing.T) {
	_, inventory := newAnsible(t, "ansible-inventory")
	var list map[string]struct{ Children, Hosts []string }
	var text map[string]json.RawMessage
	if err := json.Unmarshal([]byte(inventory("--list")), &text); err != nil {
		t.Fatal(err)
	}
	delete(text, "_meta")
	groups, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(groups, &list); err != nil {
		t.Fatal(err)
	}
	type group = struct{ Children, Hosts []string }
	want := map[string]group{
		"all":         {Children: []string{"ungrouped", "k3s_cluster", "master", "worker", "unmanaged"}},
		"k3s_cluster": {Children: []string{"server", "agent"}},
		"server":      {Hosts: []string{"server-1"}},
		"agent":       {Hosts: []string{"agent-1"}},
		"master":      {Children: []string{"server"}},
		"worker":      {Children: []string{"agent"}},
		"unmanaged":   {Hosts: []string{"nas"}},
	}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	var vars map[string]any
	if err := json.Unmarshal([]byte(inventory("--host", "server-1")), &vars); err != nil {
		t.Fatal(err)
	}
	wantVars := map[string]any{
		"ansible_host": "192.0.2.11", "ansible_user": "k3lab",
		"ansible_ssh_private_key_file": "{{ inventory_dir }}/../../.k3lab/ssh/id_ed25519",
		"ansible_ssh_common_args":      `-o 'UserKnownHostsFile="{{ inventory_dir }}/../../.k3lab/known_hosts"' -o StrictHostKeyChecking=accept-new`,
	}
	if diff := cmp.Diff(wantVars, vars); diff != "" {
		t.Errorf("server-1 (-want +got):\n%s", diff)
	}
}

// TestSSHGetsThePathsOfTheWorkspace has ssh itself say what it was told, from
// where the workspace was made and after it was moved.
func TestSSHGetsThePathsOfTheWorkspace(t *testing.T) {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("ssh is not installed")
	}
	l, ansible := newAnsible(t, "ansible")
	for _, name := range []string{folder, "my  moved lab"} {
		if moved := filepath.Join(filepath.Dir(l.dir), name); moved != l.dir {
			if err := os.Rename(l.dir, moved); err != nil {
				t.Fatal(err)
			}
			l.dir = moved
		}
		l.write("ssh", "#!/bin/sh\nexec '"+ssh+"' -G \"$@\" >'"+l.path("said")+"' 2>&1\n")
		if err := os.Chmod(l.path("ssh"), 0o755); err != nil {
			t.Fatal(err)
		}
		out := ansible("server-1", "-m", "raw", "-a", "true")
		said := map[string]string{}
		for line := range strings.Lines(l.read("said")) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			if key == "userknownhostsfile" || key == "identityfile" || key == "hostname" || key == "user" || key == "stricthostkeychecking" {
				said[key] = strings.ReplaceAll(value, "/ansible/inventory/../..", "")
			}
		}
		want := map[string]string{
			"userknownhostsfile": l.path(".k3lab/known_hosts"), "identityfile": l.path(".k3lab/ssh/id_ed25519"),
			"hostname": "192.0.2.11", "user": "k3lab", "stricthostkeychecking": "accept-new",
		}
		if diff := cmp.Diff(want, said); diff != "" {
			t.Errorf("%s (-want +got):\n%s\n%s", name, diff, out)
		}
	}
}
