package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// ansible runs ansible-playbook in the workspace as a person would, with k3lab in
// the PATH.
func (l *lab) ansible(t *testing.T, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("ansible-playbook"); err != nil {
		t.Skip("ansible-playbook is not installed (try: hack/prereqs)")
	}
	cmd := exec.CommandContext(t.Context(), "ansible-playbook", args...)
	cmd.Dir = filepath.Join(l.dir, "ansible")
	cmd.Env = append(slices.Clone(l.env), "ANSIBLE_NOCOLOR=1", "PATH="+filepath.Dir(l.bin)+":"+os.Getenv("PATH"))
	began := time.Now()
	out, err := cmd.CombinedOutput()
	t.Logf("ansible-playbook %s: %.1fs", strings.Join(args, " "), time.Since(began).Seconds())
	return string(out), err
}

// playbook runs a playbook that must succeed, and returns what it prints.
func (l *lab) playbook(t *testing.T, args ...string) string {
	t.Helper()
	out, err := l.ansible(t, args...)
	if err != nil {
		t.Fatalf("ansible-playbook %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

var (
	recap   = regexp.MustCompile(`(?m)^(\S+) +: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+)`)
	changed = regexp.MustCompile(`(?m)^changed: \[(\S+)\] => \{`)
)

// recapOf maps each host to what changed, was unreachable and failed.
func recapOf(out string) map[string]string {
	got := map[string]string{}
	for _, m := range recap.FindAllStringSubmatch(out, -1) {
		got[m[1]] = m[2] + " " + m[3] + " " + m[4]
	}
	return got
}

// changesOf are the changes that a run with -v lists, as describe writes them.
func changesOf(t *testing.T, out string) []string {
	t.Helper()
	var got []string
	for _, m := range changed.FindAllStringSubmatchIndex(out, -1) {
		var result struct {
			Changes []struct{ Resource, Action string }
		}
		text := out[m[1]-1:] // from the brace on, over as many lines as it takes
		if err := json.NewDecoder(strings.NewReader(text)).Decode(&result); err != nil {
			t.Fatalf("%v in %.2000s", err, text)
		}
		for _, c := range result.Changes {
			got = append(got, out[m[2]:m[3]]+": "+c.Action+" "+c.Resource)
		}
	}
	slices.Sort(got)
	return got
}

// ansibleAgrees: on what k3lab has converged Ansible finds nothing to do; of the
// same drift both show the same; a tag touches its own concern alone; and the
// token of the cluster is nowhere in what Ansible prints.
func ansibleAgrees(t *testing.T, l *lab) {
	none := map[string]string{"localhost": "0 0 0"}
	for _, n := range nodes {
		none[n] = "0 0 0"
	}
	if d := cmp.Diff(none, recapOf(l.playbook(t, "site.yaml"))); d != "" {
		t.Errorf("changed, unreachable, failed after k3lab up (-want +got):\n%s", d)
	}

	l.onMachine("server-2", "rm", "/etc/rancher/k3s/config.yaml")
	l.onMachine("server-3", "sh", "-c", `'echo `+otherToken+` >/etc/rancher/k3s/token'`)
	l.onMachine("agent-1", "systemctl", "stop", "k3s-agent")
	l.onMachine("agent-2", "hostname", "other")
	native := describe(l.plan(2))
	slices.Sort(native)
	check := l.playbook(t, "site.yaml", "--check", "--diff", "-vvv")
	if d := cmp.Diff(native, changesOf(t, check)); d != "" {
		t.Errorf("--check shows others than k3lab plan (-plan +check):\n%s", d)
	}
	if !strings.Contains(check, "+++ after: create file /etc/rancher/k3s/config.yaml") {
		t.Errorf("--diff does not show the file that is missing:\n%s", check)
	}
	changedSecretIsNotShown(t, l, check)

	l.playbook(t, "site.yaml", "--tags", "os")
	after := describe(l.plan(2))
	slices.Sort(after)
	rest := slices.DeleteFunc(slices.Clone(native), func(c string) bool { return c == "agent-2: update hostname" })
	if len(rest) != len(native)-1 {
		t.Errorf("no drift of the operating system in %v", native)
	}
	if d := cmp.Diff(rest, after); d != "" {
		t.Errorf("left to do after --tags os (-want +got):\n%s", d)
	}
	l.playbook(t, "site.yaml")
	whole(t, l)
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan after site.yaml: %v", describe(changes))
	}
}

// otherToken is found on a machine where the token of the cluster should be.
const otherToken = "canary-of-a-token-that-was-changed"

// changedSecretIsNotShown: that a secret differs is told, but neither what it is nor
// what it should be, in any form of a plan and in any journal.
func changedSecretIsNotShown(t *testing.T, l *lab, ansible string) {
	t.Helper()
	token := strings.TrimSpace(l.silent("secrets", "get", "k3s_token"))
	texts := map[string]string{
		"ansible-playbook --check --diff -vvv": ansible, "plan": l.exit(2, "plan"), "plan --json": l.exit(2, "plan", "--json"),
	}
	for name, text := range texts {
		if !strings.Contains(text, "secret content") {
			t.Errorf("%s does not tell that a secret differs:\n%s", name, text)
		}
	}
	journals, err := filepath.Glob(filepath.Join(l.dir, ".k3lab/runs/*"))
	if err != nil || len(journals) == 0 {
		t.Fatalf("no journals: %v", err)
	}
	for _, path := range journals {
		texts[path] = readFile(t, path)
	}
	for name, text := range texts {
		for which, secret := range map[string]string{"the token of the cluster": token, "what is in its place": otherToken} {
			if secret == "" || strings.Contains(text, secret) {
				t.Errorf("%s (%d characters) stands in %s", which, len(secret), name)
			}
		}
	}
}

// TestAnsibleAlone: machines that only Terraform has made become a cluster by
// Ansible, and k3lab then finds nothing to change.
func TestAnsibleAlone(t *testing.T) {
	l := newLab(t, "k3lab-e2e-ansible", "small")
	l.exit(0, "up", "--yes", "--layer", "infra")
	for _, m := range []string{"server-1", "agent-1", "agent-2"} {
		eventually(t, 2*time.Minute, m+" has booted", func() bool {
			_, err := l.run("-C", l.dir, "ssh", m, "--", "true")
			return err == nil
		})
	}
	for host, got := range recapOf(l.playbook(t, "site.yaml")) {
		if !strings.HasSuffix(got, " 0 0") || strings.HasPrefix(got, "0 ") {
			t.Errorf("%s: changed, unreachable, failed are %s", host, got)
		}
	}
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan after site.yaml: %v", describe(changes))
	}
	machinesAreReset(t, l)
	l.exit(0, "destroy", "--name", l.name)
}
