package scripts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
)

type command = func(ts *testscript.TestScript, neg bool, args []string)

func commands() map[string]command {
	all := map[string]struct {
		least int
		usage string
		run   func(ts *testscript.TestScript, args []string)
	}{
		"exit":       {2, "N COMMAND…", exit},
		"eventually": {2, "LIMIT COMMAND…", eventually},
		"edit":       {3, "FILE OLD NEW", edit},
		"remember":   {1, "DIR [SANDBOX]", remember},
		"unchanged":  {1, "DIR [SANDBOX]", unchanged},
		"proxmox":    {3, "SANDBOX METHOD PATH [FILE]", proxmox},
		"kill-api":   {1, "SANDBOX", killAPI},
		"layout":     {2, "NAME DIR ENDPOINT=SANDBOX…", layout},
		"as-nobody":  {2, "N ARGUMENT…", asNobody},
		"releases":   {1, "DIR", releases},
	}
	out := map[string]command{}
	for name, c := range all {
		out[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) < c.least {
				ts.Fatalf("usage: %s %s", name, c.usage)
			}
			c.run(ts, args)
		}
	}
	return out
}

func exit(ts *testscript.TestScript, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		ts.Fatalf("%v", err)
	}
	got := 0
	if ended != nil {
		got = ended.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func eventually(ts *testscript.TestScript, args []string) {
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ts.Exec(args[1], args[2:]...) != nil; <-tick.C {
		if time.Since(began) > limit {
			ts.Fatalf("not within %s", limit)
		}
	}
}

func edit(ts *testscript.TestScript, args []string) {
	file := ts.MkAbs(args[0])
	text := ts.ReadFile(file)
	old, fresh := strings.ReplaceAll(args[1], `\n`, "\n"), strings.ReplaceAll(args[2], `\n`, "\n")
	if n := strings.Count(text, old); n != 1 {
		ts.Fatalf("%q stands %d times in:\n%s", old, n, text)
	}
	ts.Check(os.WriteFile(file, []byte(strings.Replace(text, old, fresh, 1)), 0o644))
}

type rememberedKey struct{}

func remember(ts *testscript.TestScript, args []string) {
	kept := ts.Value(rememberedKey{}).(map[string]map[string]string)
	kept[strings.Join(args, " ")] = state(ts, args)
}

func unchanged(ts *testscript.TestScript, args []string) {
	before, ok := ts.Value(rememberedKey{}).(map[string]map[string]string)[strings.Join(args, " ")]
	if !ok {
		ts.Fatalf("nothing was remembered of %s", strings.Join(args, " "))
	}
	if d := cmp.Diff(before, state(ts, args)); d != "" {
		ts.Fatalf("it changed (-before +now):\n%s", d)
	}
}

// state is what an operation that was refused must not touch: the workspace's
// files by their digests, and the VMs by their settings.
func state(ts *testscript.TestScript, args []string) map[string]string {
	out := map[string]string{}
	if len(args) == 2 {
		machinesOf(ts, args[1], out)
	}
	root := ts.MkAbs(args[0])
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil || d.IsDir() {
			if passing(name) {
				return filepath.SkipDir
			}
			return err
		}
		if passing(name) {
			return nil
		}
		text, err := os.ReadFile(path)
		sum := sha256.Sum256(text)
		out[name] = hex.EncodeToString(sum[:])
		return err
	})
	ts.Check(err)
	return out
}

// passing reports whether a path is no one's data: caches, journals, locks and
// what is written anew from the settings by every command.
func passing(name string) bool {
	kept := []string{".k3lab/ssh", ".k3lab/known_hosts", ".k3lab/kubeconfig"}
	if strings.HasPrefix(name, ".k3lab/") {
		return !slices.ContainsFunc(kept, func(k string) bool { return strings.HasPrefix(name, k) })
	}
	base := filepath.Base(name)
	return base == ".git" || base == ".terraform" || base == ".terraform.lock.hcl" || base == ".secrets.lock"
}

// asNobody runs k3lab as a user who is not root, from a place that user can reach.
func asNobody(ts *testscript.TestScript, args []string) {
	if os.Geteuid() != 0 {
		exit(ts, append([]string{args[0], "k3lab"}, args[1:]...))
		return
	}
	dir := ts.Getenv("NOBODY")
	if dir == "" {
		dir = nobodysHome(ts)
		ts.Setenv("NOBODY", dir)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "k3lab"), args[1:]...)
	cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	err := cmd.Run()
	if got := strconv.Itoa(cmd.ProcessState.ExitCode()); got != args[0] {
		ts.Fatalf("exit code %s (%v), want %s", got, err, args[0])
	}
}

// nobodysHome is a folder of that user's with k3lab in it; it is gone when the
// script ends.
func nobodysHome(ts *testscript.TestScript) string {
	dir, err := os.MkdirTemp("", "k3lab-nobody")
	ts.Check(err)
	ts.Defer(func() {
		if err := sandboxesDown([]string{"HOME=" + dir, "K3LAB_SANDBOX_DIR=" + nobodysSandboxes(dir)}, nobodysSandboxes(dir)); err != nil {
			ts.Logf("%v", err)
		}
		os.RemoveAll(dir)
	})
	ts.Check(os.Chmod(dir, 0o777)) //nolint:gosec // for nobody to write to
	self, err := os.ReadFile(os.Getenv("K3LAB_BIN"))
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(dir, "k3lab"), self, 0o755)) //nolint:gosec // a program
	return dir
}

func nobodysSandboxes(home string) string { return filepath.Join(home, ".local/state/k3lab/sandbox") }
