package workspace_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/workspace"
)

// holdVariable makes this test binary hold the lock of the workspace it names
// until its standard input ends.
const holdVariable = "WORKSPACE_TEST_HOLD"

func TestMain(m *testing.M) {
	dir := os.Getenv(holdVariable)
	if dir == "" {
		os.Exit(m.Run())
	}
	d, err := workspace.At(dir)
	if err == nil {
		_, err = workspace.AcquireLock(d, "up")
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("held")
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// hold has another process hold the lock; kill ends it as kill -9 does.
func hold(t *testing.T, d workspace.Dir) (pid int, kill func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), holdVariable+"="+d.Root())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		stdin.Close()
	}
	t.Cleanup(kill)
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process: %q, %v", line, err)
	}
	return cmd.Process.Pid, kill
}

// TestLockNamesItsHolder, and ends with the process that has it.
func TestLockNamesItsHolder(t *testing.T) {
	d := at(t, t.TempDir())
	if err := workspace.CheckFree(d); err != nil {
		t.Errorf("looking where nobody ever was: %v", err)
	}
	pid, kill := hold(t, d)
	_, err := workspace.AcquireLock(d, "plan")
	host, _ := os.Hostname()
	want := fmt.Sprintf(`^%s: k3lab up \(process %d on %s, since \d\d:\d\d:\d\d\) is at work in this workspace \(try: again when it is done\)$`,
		regexp.QuoteMeta(d.Root()), pid, regexp.QuoteMeta(host))
	if err == nil || !regexp.MustCompile(want).MatchString(err.Error()) || fault.KindOf(err) != fault.Locked {
		t.Errorf("kind %d: got %v\nwant %s", fault.KindOf(err), err, want)
	}
	// Who only looks is told the same.
	if looked := workspace.CheckFree(d); looked == nil || looked.Error() != err.Error() {
		t.Errorf("looking: %v, want %v", looked, err)
	}
	kill()
	if err := workspace.CheckFree(d); err != nil {
		t.Errorf("looking after the holder was killed: %v", err)
	}
	lock, err := workspace.AcquireLock(d, "plan")
	if err != nil {
		t.Fatalf("after the holder was killed: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(d.Path(".k3lab/lock")); err != nil || len(text) != 0 {
		t.Errorf("after release the file says %q, %v", text, err)
	}
	if _, err := workspace.AcquireLock(d, "plan"); err != nil {
		t.Errorf("after release: %v", err)
	}
}

// TestInitWaitsForNobody: it does not change the workspace under an operation.
func TestInitWaitsForNobody(t *testing.T) {
	user(t)
	d := at(t, t.TempDir())
	opts := workspace.Options{Example: "single", LabName: "home"}
	mustInit(t, d, opts)
	hold(t, d)
	opts.Force = true
	if _, err := workspace.Init(d, opts); fault.KindOf(err) != fault.Locked {
		t.Errorf("got %v, want it locked", err)
	}
}

func TestFind(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	lab := filepath.Join(root, "lab")
	for _, dir := range []string{"terraform/vars", "kubernetes/apps/deep"} {
		if err := os.MkdirAll(filepath.Join(lab, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(lab, "terraform/vars/nodes.yaml"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ dir, from, want, wantErr string }{
		"named":        {lab, root, lab, ""},
		"relative":     {"../lab/", lab, lab, ""},
		"here":         {"", lab, lab, ""},
		"above":        {"", filepath.Join(lab, "kubernetes/apps/deep"), lab, ""},
		"in terraform": {"", filepath.Join(lab, "terraform/vars"), lab, ""},
		"named, none":  {filepath.Join(lab, "terraform"), lab, "", lab + "/terraform: there is no workspace here: terraform/vars/nodes.yaml is missing (try: k3lab init " + lab + "/terraform)"},
		"none above":   {"", root, "", root + ": there is no workspace here or above: terraform/vars/nodes.yaml is missing (try: k3lab init DIR, or k3lab -C DIR)"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Chdir(tt.from)
			d, err := workspace.Find(tt.dir)
			if tt.wantErr != "" {
				if err == nil || err.Error() != tt.wantErr || fault.KindOf(err) != fault.Invalid {
					t.Errorf("got  %v\nwant %s", err, tt.wantErr)
				}
				return
			}
			if err != nil || d.Root() != tt.want {
				t.Errorf("got %q, %v; want %q", d.Root(), err, tt.want)
			}
			if got := d.SSHKey(); !strings.HasPrefix(got, tt.want+"/.k3lab/") {
				t.Errorf("key file %s is not in the workspace", got)
			}
		})
	}
}
