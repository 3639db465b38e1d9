package config

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/fault"
)

func TestProblems(t *testing.T) {
	c := &checker{sources: newSources()}
	c.sources.addFile(nodesFile, []byte("machines:\n\ta: {\u00fc: x, b: y}\r\n"))
	at := func(line, column, width int) span { return span{Position{nodesFile, line, column}, width} }
	c.warnf(at(1, 1, 8), "more servers", "too few")
	c.errorf(at(2, 12, 1), "", "wrong")
	c.errorf(at(2, 6, 99), "shorter", "too wide: held within the line")
	c.errorf(at(9, 9, 1), "", "beyond the end")
	c.errorf(at(2, 12, 1), "", "wrong")
	p := &Problems{list: sorted(c.problems)}
	want := `terraform/vars/nodes.yaml:2:6: error: too wide: held within the line
    2 | ` + "\t" + `a: {ü: x, b: y}
      | ` + "\t" + `    ^^^^^^^^^^^
      = shorter

terraform/vars/nodes.yaml:2:12: error: wrong
    2 | ` + "\t" + `a: {ü: x, b: y}
      | ` + "\t" + `          ^

terraform/vars/nodes.yaml:3:1: error: beyond the end
    3 | ` + `
      | ^

terraform/vars/nodes.yaml:1:1: warning: too few
    1 | machines:
      | ^^^^^^^^
      = more servers

3 errors, 1 warning`
	if diff := cmp.Diff(want, p.Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := p.Warnings()[0].Short(); got != "terraform/vars/nodes.yaml:1:1: too few (more servers)" {
		t.Error(got)
	}
	if got := fault.KindOf(errors.Join(errors.New("x"), p.Err())); got != fault.Invalid {
		t.Errorf("kind %d", got)
	}
	var none *Problems
	if none.Err() != nil || none.Text() != "" || (&Problems{list: p.Warnings()}).Err() != nil {
		t.Error("an error without errors")
	}
}

func TestRedacted(t *testing.T) {
	tests := map[string]string{
		`k3s_token: "K10abc::server:x"  # mine`:              `k3s_token: ******************  # mine`,
		`{password: hunter2, user: me}`:                      `{password: *******, user: me}`,
		`url: https://root:hunter2@192.168.10.2:8006`:        `url: https://************@192.168.10.2:8006`,
		`  -----BEGIN OPENSSH PRIVATE KEY----- b3BlbnNzaA==`: `  -----BEGIN OPENSSH PRIVATE KEY-----*************`,
		`tokens are not mentioned here`:                      `tokens are not mentioned here`,
		`key_file: ~/.ssh/lab`:                               `key_file: ~/.ssh/lab`,
	}
	for line, want := range tests {
		if got := redacted(line, credentials, secretText); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestLoadUnreadable: what the operating system says reaches the user once.
func TestLoadUnreadable(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, nodesFile), 0o755); err != nil {
		t.Fatal(err)
	}
	lab, problems := Load(dir)
	want := `terraform/vars/nodes.yaml: error: cannot be read: is a directory

terraform/vars/network.yaml: error: the file is missing
 = a workspace made by k3lab init has it

terraform/vars/proxmox.yaml: error: the file is missing
 = a workspace made by k3lab init has it

ansible/group_vars/all.yaml: error: the file is missing
 = a workspace made by k3lab init has it`
	if diff := cmp.Diff(want, problems.Text()); diff != "" || lab == nil {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSizes(t *testing.T) {
	tests := map[string]struct{ mib, gib string }{ // "" where there is no sure meaning
		"8192": {"8192", "8192"}, "8": {"8192", "8"}, "255": {"261120", "255"}, "256": {"256", "256"},
		"8G": {"8192", "8"}, "8g": {"8192", "8"}, "8GB": {"8192", "8"}, "8 GiB": {"8192", "8"}, "1.5G": {"1536", ""},
		"512M": {"512", ""}, "2048MiB": {"2048", "2"}, "1T": {"1048576", "1024"}, "1.5T": {"1572864", "1536"},
		"8K": {"", ""}, "1.5": {"", ""}, "8X": {"", ""}, "": {"", ""}, "-8G": {"", ""}, "99999999999G": {"", ""}, "0": {"0", "0"},
	}
	for text, want := range tests {
		n := &node{kind: kindText, text: text}
		mib, ok := toMiB(n)
		if !ok {
			mib = ""
		}
		gib, ok := toGiB(n)
		if !ok {
			gib = ""
		}
		if mib != want.mib || gib != want.gib {
			t.Errorf("%q: got %q MiB and %q GiB, want %q and %q", text, mib, gib, want.mib, want.gib)
		}
	}
}
