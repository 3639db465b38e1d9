package workspace_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestActionPlugins runs the tests that are written in the plugins' own language,
// against Ansible's own base class.
func TestActionPlugins(t *testing.T) {
	python := pythonOfAnsible(t)
	plugins, err := filepath.Abs("templates/files/ansible/action_plugins")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-B", "-m", "unittest", "plugins_test.py")
	cmd.Dir, cmd.Env = "testdata", append(os.Environ(), "PLUGINS="+plugins, "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil || !regexp.MustCompile(`(?m)^Ran [1-9][0-9]* tests`).Match(out) {
		t.Errorf("%v\n%s", err, out)
	}
}

// pythonOfAnsible is the interpreter that ansible-playbook is run by.
func pythonOfAnsible(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("ansible-playbook")
	if err != nil {
		t.Skip("ansible-playbook is not installed (try: hack/prereqs)")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	words := strings.Fields(strings.TrimPrefix(line, "#!"))
	if !strings.HasPrefix(line, "#!") || len(words) != 1 || !strings.Contains(words[0], "python") {
		t.Skipf("%s is run by %q, and not by a python of its own", path, line)
	}
	return words[0]
}

// TestAFailureOfK3labIsToldInOneMessage: as people see it, through ansible-playbook.
func TestAFailureOfK3labIsToldInOneMessage(t *testing.T) {
	dir, run := inAnsible(t)
	_ = run("ansible-playbook", "--version")
	if err := os.MkdirAll(filepath.Join(dir, "inventory"), 0o755); err != nil {
		t.Fatal(err)
	}
	inventory := "[server]\nserver-1 ansible_connection=local\n[k3s_cluster:children]\nserver\n"
	if err := os.WriteFile(filepath.Join(dir, "inventory/hosts.ini"), []byte(inventory), 0o600); err != nil {
		t.Fatal(err)
	}
	for playbook, want := range map[string]string{
		"site.yaml":      "/nowhere/k3lab cannot be run (No such file or directory)",
		"update-os.yaml": "/nowhere/k3lab cannot be run (No such file or directory)",
		"reset.yaml":     "/nowhere/k3lab cannot be run (No such file or directory)",
	} {
		cmd := exec.Command("ansible-playbook", playbook, "-e", "k3lab_program=/nowhere/k3lab")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "ANSIBLE_NOCOLOR=1")
		out, err := cmd.CombinedOutput()
		text := string(out)
		if err == nil || !strings.Contains(text, want) || strings.Contains(text, "Traceback") || strings.Contains(text, "An exception occurred") {
			t.Errorf("%s: %v, want only %q:\n%s", playbook, err, want, text)
		}
	}
}
