package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// newLoginKey has the rotation of the key to log in with interrupted when the first
// machine knows the next key, and then finished.
func newLoginKey(t *testing.T, l *lab) {
	old := filepath.Join(t.TempDir(), "old")
	if err := os.WriteFile(old, []byte(l.silent("secrets", "get", "ssh_private_key")), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := l.command(context.Background(), "-C", l.dir, "secrets", "rotate", "ssh_private_key", "--yes")
	out := &triggered{on: "lets the next key in", then: func() { _ = cmd.Process.Signal(syscall.SIGKILL) }}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err == nil || !out.fired {
		t.Fatalf("it was not interrupted: %v\n%s", err, out.text.String())
	}
	if half := !strings.Contains(l.exit(0, "secrets", "list"), "ssh_private_keys_retired"); half {
		l.exit(0, "up", "--yes") // works on with the old key
		l.exit(0, "secrets", "rotate", "ssh_private_key", "--yes")
	} else {
		l.exit(0, "up", "--yes")
	}
	if names := l.exit(0, "secrets", "list"); strings.Contains(names, "ssh_private_key_next") || !strings.Contains(names, "ssh_private_keys_retired.") {
		t.Errorf("secrets are\n%s\nwant the old key retired and no next one", names)
	}
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan after the rotation: %v", describe(changes))
	}
	key := filepath.Join(l.dir, ".k3lab/ssh/id_ed25519")
	for _, m := range l.members() {
		if out, err := l.ssh(m.Address, "k3lab", "-i", key); err != nil {
			t.Errorf("%s refuses the new key: %v\n%s", m.Name, err, out)
		}
		if out, err := l.ssh(m.Address, "k3lab", "-i", old); err == nil || !strings.Contains(out, "Permission denied (publickey)") {
			t.Errorf("%s does not refuse the old key: %v\n%s", m.Name, err, out)
		}
	}

	// A first boot that is gone through again brings the old key back.
	line, err := exec.Command("ssh-keygen", "-y", "-f", old).Output()
	if err != nil {
		t.Fatal(err)
	}
	onStdin(l, "agent-1", string(line), "cat >>"+authorizedKeys)
	if got := describe(l.plan(2)); len(got) != 1 || !strings.HasPrefix(got[0], "agent-1: update authorized keys of ") {
		t.Errorf("the old key came back, and plan says %v", got)
	}
	l.exit(0, "up", "--yes")
	for _, m := range l.members() {
		if _, err := l.ssh(m.Address, "k3lab", "-i", old); err == nil {
			t.Errorf("%s lets the old key in again", m.Name)
		}
	}

	// Another computer has the old key still.
	if err := os.Rename(old, key); err != nil {
		t.Fatal(err)
	}
	l.exit(0, "ssh", "server-1", "--", "true")
}
