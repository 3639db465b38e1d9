package e2e

import (
	"bytes"
	"context"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// canaries are the lab's secrets: what must be found nowhere but where it belongs.
type canaries struct {
	values map[string]string // name → a text that stands in no other place by chance
	mu     sync.Mutex
	seen   map[string]string // in command lines: name → the program
}

// secretsOf reads the lab's secrets. Of a key a line of its body is enough.
func secretsOf(l *lab) map[string]string {
	l.t.Helper()
	get := func(key string) string { return strings.TrimSpace(l.silent("secrets", "get", key)) }
	values := map[string]string{"k3s_token": get("k3s_token"), canaryRegistry: get(canaryRegistry)}
	_, values["proxmox_api_tokens"], _ = strings.Cut(get("proxmox_api_tokens.sandbox"), "=")
	for name, v := range values {
		if len(v) < 16 {
			l.t.Fatalf("%s: %d characters could be anywhere by chance", name, len(v))
		}
	}
	return values
}

// watchCommandLines reads the command lines of all processes, those in the
// machines too, until the test ends.
func watchCommandLines(t *testing.T, l *lab) *canaries {
	t.Helper()
	c := &canaries{values: secretsOf(l), seen: map[string]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for ; ctx.Err() == nil; <-tick.C {
			c.readCommandLines()
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

func (c *canaries) readCommandLines() {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		for name, value := range c.values {
			if bytes.Contains(text, []byte(value)) {
				program, _, _ := strings.Cut(string(text), "\x00")
				c.seen[name] = program
			}
		}
	}
}

// belongs are the places on machines where the cluster's token has to be.
var belongs = regexp.MustCompile(`^(/etc/rancher/k3s/token|/var/lib/rancher/k3s/server/(token|node-token|agent-token|cred/passwd))$`)

func (c *canaries) search(t *testing.T, l *lab) {
	c.mu.Lock()
	if d := cmp.Diff(map[string]string{}, c.seen); d != "" {
		t.Errorf("secrets in command lines (-want +got):\n%s", d)
	}
	c.mu.Unlock()
	maps.Copy(c.values, secretsOf(l)) // the token is another now
	key := strings.Split(l.silent("secrets", "get", "ssh_private_key"), "\n")
	c.values["ssh_private_key"] = key[len(key)/2]
	for name, value := range c.values {
		if strings.Contains(l.said.String(), value) {
			t.Errorf("k3lab has printed %s", name)
		}
	}
	c.searchFiles(t, l)
	var patterns strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c.values)) {
		patterns.WriteString(c.values[name] + "\n")
	}
	for _, m := range nodes {
		for file := range strings.Lines(onStdin(l, m, patterns.String(), "grep -rlsIF -f - /etc /home /opt /root /run /srv /tmp /usr/local /var || test $? = 1")) {
			if file = strings.TrimSpace(file); !belongs.MatchString(file) {
				t.Errorf("%s: a secret stands in %s", m, file)
			}
		}
		if out := onStdin(l, m, patterns.String(), "umask 077; cat >/run/patterns; journalctl --no-pager -o export | grep -cF -f /run/patterns; rm /run/patterns"); strings.TrimSpace(out) != "0" {
			t.Errorf("%s: secrets stand in its journal, in %s lines", m, strings.TrimSpace(out))
		}
	}
}

// searchFiles looks into the workspace, Terraform's state and the journals of
// runs included, and into what k3lab keeps in the user's home.
func (c *canaries) searchFiles(t *testing.T, l *lab) {
	files := 0
	for _, root := range []string{l.dir, l.home()} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || path == filepath.Join(l.dir, ".k3lab/ssh/id_ed25519") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files++
			for name, value := range c.values {
				if bytes.Contains(text, []byte(value)) {
					t.Errorf("%s stands in %s", name, path)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if state, err := os.ReadFile(filepath.Join(l.dir, "terraform/terraform.tfstate")); err != nil || !bytes.Contains(state, []byte("k3lab_ssh_key")) || files < 20 {
		t.Errorf("%d files were read, Terraform's state among them: %v; the search shows nothing", files, err)
	}
}

// newToken has the rotation of the cluster's token interrupted at its worst
// moment, when the cluster knows a token that is not yet the lab's.
func newToken(t *testing.T, l *lab) {
	old := strings.TrimSpace(l.silent("secrets", "get", "k3s_token"))
	cmd := l.command(context.Background(), "-C", l.dir, "secrets", "rotate", "k3s_token", "--yes")
	out := &triggered{on: "has a new token", then: func() { _ = cmd.Process.Signal(syscall.SIGKILL) }}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err == nil || !out.fired {
		t.Fatalf("it was not interrupted: %v\n%s", err, out.text.String())
	}
	if strings.Contains(l.exit(0, "secrets", "list"), "k3s_token_next") {
		if said := l.exit(1, "up", "--yes"); !strings.Contains(said, "(try: k3lab secrets rotate k3s_token)") {
			t.Errorf("up does not say how to go on:\n%s", said)
		}
		l.exit(0, "secrets", "rotate", "k3s_token", "--yes")
	} else {
		l.exit(0, "up", "--yes")
	}
	whole(t, l)
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan after the rotation: %v", describe(changes))
	}
	names := l.exit(0, "secrets", "list")
	if strings.Contains(names, "k3s_token_next") || !strings.Contains(names, "k3s_tokens_retired.") {
		t.Errorf("secrets are\n%s\nwant the old token retired and no next one", names)
	}
	fresh := strings.TrimSpace(l.silent("secrets", "get", "k3s_token"))
	for token, want := range map[string]string{old: "401", fresh: "200"} {
		for _, m := range []string{"server-1", "server-2", "server-3"} {
			got := onStdin(l, m, "user = \"node:"+token+"\"\n",
				"curl -sS -K - -o /dev/null -w %{http_code} --cacert /var/lib/rancher/k3s/server/tls/server-ca.crt https://127.0.0.1:6443/v1-k3s/readyz")
			if got != want {
				t.Errorf("%s answers %s, want %s (%s token)", m, got, want, map[string]string{"401": "old", "200": "new"}[want])
			}
		}
	}
}

// triggered calls then once what is written to it has a text.
type triggered struct {
	on    string
	then  func()
	text  bytes.Buffer
	fired bool
}

func (w *triggered) Write(p []byte) (int, error) {
	w.text.Write(p)
	if !w.fired && strings.Contains(w.text.String(), w.on) {
		w.fired = true
		w.then()
	}
	return len(p), nil
}

// silent is what a command prints, kept from the record of what k3lab has said.
func (l *lab) silent(args ...string) string {
	l.t.Helper()
	out, err := l.command(context.Background(), append([]string{"-C", l.dir}, args...)...).Output()
	if err != nil {
		l.t.Fatalf("k3lab %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

// onStdin runs a shell command as root on a machine and gives it a text to read.
func onStdin(l *lab, machine, text, script string) string {
	l.t.Helper()
	cmd := exec.Command(l.bin, "-C", l.dir, "ssh", machine, "--", "sudo sh -c '"+script+"'")
	cmd.Env, cmd.Stdin = l.env, strings.NewReader(text)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		l.t.Fatalf("%s: %s: %v\n%s", machine, script, err, &stderr)
	}
	return string(out)
}

// home is the home directory k3lab is run with.
func (l *lab) home() string {
	for _, v := range slices.Backward(l.env) {
		if dir, ok := strings.CutPrefix(v, "HOME="); ok {
			return dir
		}
	}
	return ""
}
