package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lab is a workspace and its sandbox, driven through the k3lab binary.
type lab struct {
	t    *testing.T
	bin  string
	dir  string
	name string // of the sandbox
	env  []string
	said bytes.Buffer // everything k3lab has printed
}

// newLab starts a sandbox of its own and writes a workspace for it. Both are
// gone when the test ends, however it ends.
func newLab(t *testing.T, name, example string) *lab {
	t.Helper()
	l := newSandbox(t, name)
	l.ok("init", l.dir, "--name", name, "--example", example, "--sandbox", name)
	return l
}

// newSandbox starts a sandbox, gone when the test ends, for a lab without a
// workspace yet.
func newSandbox(t *testing.T, name string) *lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("real machines need root")
	}
	bin := os.Getenv("K3LAB_BIN")
	if bin == "" || os.Getenv("K3LAB_K3S_BINARY") == "" {
		t.Skip("K3LAB_BIN and K3LAB_K3S_BINARY are not set (try: make test)")
	}
	home := t.TempDir()
	l := &lab{t: t, bin: bin, dir: filepath.Join(t.TempDir(), "lab"), name: name}
	l.env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME=", "SOPS_AGE_KEY_FILE=")
	t.Cleanup(func() {
		l.t = t
		if out, err := l.run("sandbox", "down", name); err != nil {
			t.Errorf("sandbox down: %v\n%s", err, out)
		}
	})
	l.ok("sandbox", "up", name)
	return l
}

// phase runs one part of a test; later phases need the earlier ones.
func (l *lab) phase(name string, f func(t *testing.T)) {
	t := l.t
	t.Helper()
	ok := t.Run(name, func(sub *testing.T) {
		l.t = sub
		f(sub)
	})
	l.t = t
	if !ok {
		t.FailNow()
	}
}

func (l *lab) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, l.bin, args...)
	cmd.Env = l.env
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

func (l *lab) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 12*time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := l.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	l.said.Write(out.Bytes())
	return out.String(), err
}

func (l *lab) ok(args ...string) string {
	l.t.Helper()
	began := time.Now()
	out, err := l.run(args...)
	if err != nil {
		l.t.Fatalf("k3lab %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	l.t.Logf("k3lab %s: %.1fs", strings.Join(args, " "), time.Since(began).Seconds())
	return out
}

// exit runs k3lab in the workspace and checks its exit code.
func (l *lab) exit(want int, args ...string) string {
	l.t.Helper()
	began := time.Now()
	out, err := l.run(append([]string{"-C", l.dir}, args...)...)
	got := 0
	var e *exec.ExitError
	if errors.As(err, &e) {
		got = e.ExitCode()
	} else if err != nil {
		got = -1
	}
	if got != want {
		l.t.Fatalf("k3lab %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, want, out)
	}
	l.t.Logf("k3lab %s: exit code %d, %.1fs", strings.Join(args, " "), got, time.Since(began).Seconds())
	return out
}

// change is one planned change as plan --json prints it.
type change struct {
	Layer    string `json:"layer"`
	Object   string `json:"object"`
	Resource string `json:"resource"`
	Action   string `json:"action"`
	Deferred string `json:"deferred"`
}

// plan returns what plan --json lists.
func (l *lab) plan(wantExit int, args ...string) []change {
	l.t.Helper()
	out := l.exit(wantExit, append([]string{"plan", "--json"}, args...)...)
	var result struct{ Changes []change }
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, `{"changes"`) {
			if err := json.Unmarshal([]byte(line), &result); err != nil {
				l.t.Fatal(err)
			}
			return result.Changes
		}
	}
	l.t.Fatalf("plan --json printed no changes:\n%s", out)
	return nil
}

// onMachine runs a command as root on a machine.
func (l *lab) onMachine(machine string, command ...string) string {
	l.t.Helper()
	return withoutBanner(l.exit(0, append([]string{"ssh", machine, "--", "sudo"}, command...)...))
}

// sandbox is what the sandbox says of itself.
type sandbox struct {
	URL     string `json:"endpoint"`
	Token   string `json:"token"`
	CAFile  string `json:"ca_file"`
	CIDR    string `json:"cidr"`
	Gateway string `json:"gateway"`

	Hypervisors []struct{ Name string } `json:"hypervisors"`
}

func (l *lab) sandbox() sandbox {
	l.t.Helper()
	var s sandbox
	// Not kept: it is meant to show the sandbox's token.
	if err := json.Unmarshal([]byte(l.silent("sandbox", "status", l.name, "--json")), &s); err != nil {
		l.t.Fatal(err)
	}
	return s
}

// interrupted runs `k3lab up`, sends it a signal after a time, and waits for it.
func (l *lab) interrupted(after time.Duration, signal syscall.Signal) (string, error) {
	var out bytes.Buffer
	cmd := l.command(context.Background(), "-C", l.dir, "up", "--yes")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Signal(signal) })
	defer timer.Stop()
	err := cmd.Wait()
	return out.String(), err
}

func describe(changes []change) []string {
	var out []string
	for _, c := range changes {
		text := c.Object + ": " + c.Action + " " + c.Resource
		if c.Deferred != "" {
			text = c.Object + ": deferred"
		}
		out = append(out, strings.TrimSpace(text))
	}
	return out
}

func mustJSON(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatal(fmt.Errorf("%w in:\n%s", err, text))
	}
}
