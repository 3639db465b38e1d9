package converger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fakeMachine is a directory that looks like a machine, with a systemd, a dpkg
// and the other programs the converger runs. What they know lies in the
// directory too, so that it outlives a converger that is killed. A program it
// does not know is an error.
type fakeMachine struct {
	root string
	mu   sync.Mutex
	// before is called before each program does its work.
	before func(args []string)
	// refuse returns the error with which a program fails without doing anything.
	refuse func(args []string) error
	ran    []string // programs that change something
}

// fakeState is what the programs know.
type fakeState struct {
	Units    map[string]*fakeUnit `json:"units"`
	Packages map[string]string    `json:"packages"`
	Tables   map[string]string    `json:"tables"`   // what nft lists
	Upgrades string               `json:"upgrades"` // what apt-get would do
}

type fakeUnit struct {
	Load, Active, Sub, File, Result string
	Stale                           bool
	// Definition is the unit file as systemd has read it; Uses what the running
	// process has read, by path.
	Definition string
	Uses       map[string]string
	FailsWith  string
	Starts     int
}

func newFakeMachine(t *testing.T) *fakeMachine {
	t.Helper()
	f := &fakeMachine{root: t.TempDir()}
	id := fmt.Sprint(os.Getuid())
	gid := fmt.Sprint(os.Getgid())
	for path, text := range map[string]string{
		"/etc/passwd":                     "root:x:" + id + ":" + gid + "::/root:/bin/sh\nbroken line\ndaemon:x:1:1::/:/bin/false\n",
		"/etc/group":                      "root:x:" + gid + ":\n",
		"/etc/hosts":                      "127.0.0.1 localhost\n",
		"/etc/hostname":                   "old\n",
		"/proc/sys/kernel/hostname":       "old\n",
		"/proc/sys/kernel/osrelease":      "6.1.0\n",
		"/proc/sys/kernel/random/boot_id": "boot-1\n",
		"/proc/sys/net/ipv4/ip_forward":   "0\n",
		"/proc/sys/vm/overcommit_memory":  "0\n",
		"/proc/swaps":                     "Filename Type Size Used Priority\n",
		"/proc/modules":                   "",
		"/var/lib/apt/lists/x_Packages":   "",
	} {
		f.write(t, path, text)
	}
	f.save(fakeState{Units: map[string]*fakeUnit{}, Packages: map[string]string{}})
	return f
}

func (f *fakeMachine) converger() *Converger {
	return &Converger{root: f.root, programs: f, lockWait: lockWait}
}

func (f *fakeMachine) write(t testing.TB, path, text string) {
	t.Helper()
	full := filepath.Join(f.root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (f *fakeMachine) read(path string) string {
	text, err := os.ReadFile(filepath.Join(f.root, path))
	if err != nil {
		return "error: " + strings.ReplaceAll(err.Error(), f.root, "")
	}
	return string(text)
}

const fakeStatePath = "/fake.json"

func (f *fakeMachine) load() fakeState {
	var s fakeState
	text, err := os.ReadFile(filepath.Join(f.root, fakeStatePath))
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		panic(err)
	}
	return s
}

func (f *fakeMachine) save(s fakeState) {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	temp := filepath.Join(f.root, fakeStatePath+".new")
	if err := os.WriteFile(temp, text, 0o600); err != nil {
		panic(err)
	}
	if err := os.Rename(temp, filepath.Join(f.root, fakeStatePath)); err != nil {
		panic(err)
	}
}

// change edits what the programs know.
func (f *fakeMachine) change(edit func(s *fakeState)) {
	s := f.load()
	edit(&s)
	f.save(s)
}

func (f *fakeMachine) run(_ context.Context, _ []string, args ...string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.before != nil {
		f.before(args)
	}
	if f.refuse != nil {
		if err := f.refuse(args); err != nil {
			return nil, err
		}
	}
	s := f.load()
	out, err := f.answer(&s, args)
	if reads := []string{"show", "dpkg-query", "journalctl", "unshare", "--stateless", "--simulate"}; !slices.Contains(reads, args[0]) && !slices.Contains(reads, args[1]) {
		f.ran = append(f.ran, strings.Join(args, " "))
		f.save(s)
	}
	return []byte(out), err
}

func (f *fakeMachine) answer(s *fakeState, args []string) (string, error) {
	fail := func(text string) (string, error) { return "", &programError{args: args, code: 1, stderr: text} }
	switch args[0] {
	case "systemctl":
		return f.systemctl(s, args)
	case "dpkg-query":
		var out strings.Builder
		for _, name := range args[4:] {
			if status, ok := s.Packages[name]; ok {
				fmt.Fprintf(&out, "%s\t%s\t%s \n", name, name, status)
			}
		}
		return out.String(), &programError{args: args, code: 1, stderr: "no packages found matching something"}
	case "apt-get":
		switch args[1] {
		case "update":
			s.Packages["updated"] = "ii"
			return "", nil
		case "--simulate":
			return s.Upgrades, nil
		case "dist-upgrade":
			s.Upgrades = ""
			return "", nil
		}
		for _, name := range args[slices.Index(args, "--")+1:] {
			if status := s.Packages[name]; strings.HasPrefix(status, "!") {
				if s.Packages["updated"] == "" || !strings.Contains(status, "locate") || strings.Contains(status, "nowhere") {
					return fail(strings.TrimPrefix(status, "!"))
				}
			}
			s.Packages[name] = "ii"
			s.Units[name+".service"] = &fakeUnit{Load: "loaded", Active: "active", File: "enabled", Uses: f.config()}
		}
		return "", nil
	case "dpkg":
		if args[1] == "--purge" {
			if strings.HasPrefix(s.Packages[args[3]], "!") {
				return fail("dependency problems prevent removal of " + args[3])
			}
			delete(s.Packages, args[3])
			delete(s.Units, args[3]+".service")
			return "", nil
		}
		for name := range s.Packages {
			s.Packages[name] = "ii"
		}
		return "", nil
	case "sshd":
		if text, err := os.ReadFile(args[len(args)-1]); err != nil || strings.Contains(string(text), "Bad") {
			return fail("bad configuration")
		}
		return "", nil
	case "modprobe":
		return "", os.MkdirAll(filepath.Join(f.root, "sys/module", args[2]), 0o755)
	case "swapoff":
		return "", os.WriteFile(filepath.Join(f.root, "proc/swaps"), []byte("Filename\n"), 0o644)
	case "nft", "unshare", "sh":
		return f.nft(s, args)
	case "journalctl":
		return "first\nlast line of its journal\n", nil
	}
	return fail("the fake does not know this program")
}

// config is what a process that starts now reads.
func (f *fakeMachine) config() map[string]string {
	uses := map[string]string{}
	for _, path := range []string{"/etc/k3s/config.yaml", "/usr/local/bin/k3s", "/etc/ssh/sshd_config"} {
		uses[path] = f.read(path)
	}
	return uses
}

func (f *fakeMachine) systemctl(s *fakeState, args []string) (string, error) {
	words := slices.DeleteFunc(slices.Clone(args[1:]), func(a string) bool { return strings.HasPrefix(a, "--") })
	switch verb := words[0]; verb {
	case "show":
		return show(s, words[1:]), nil
	case "daemon-reload":
		for name, u := range s.Units {
			u.Stale = false
			u.Definition = f.read("/etc/systemd/system/" + name)
		}
		return "", nil
	default:
		u := s.Units[words[1]]
		if u == nil {
			if strings.HasPrefix(f.read("/etc/systemd/system/"+words[1]), "error: ") && verb != "mask" {
				return "", &programError{args: args, code: 5, stderr: "Unit " + words[1] + " not found."}
			}
			u = &fakeUnit{Load: "loaded", Active: "inactive", Sub: "dead", File: "disabled", Definition: f.read("/etc/systemd/system/" + words[1])}
			s.Units[words[1]] = u
		}
		return "", f.unitVerb(u, verb, args)
	}
}

func (f *fakeMachine) unitVerb(u *fakeUnit, verb string, args []string) error {
	switch verb {
	case "start", "restart":
		if u.FailsWith != "" {
			u.Active, u.Result = "failed", "exit-code"
			return &programError{args: args, code: 1, stderr: u.FailsWith}
		}
		if verb == "restart" || u.Active != "active" {
			u.Uses = f.config()
			u.Uses["definition"] = u.Definition
			u.Starts++
		}
		u.Active, u.Sub = "active", "running"
	case "reload", "try-reload-or-restart":
		if u.FailsWith != "" {
			return &programError{args: args, code: 1, stderr: u.FailsWith}
		}
		u.Uses = f.config()
	case "stop":
		u.Active, u.Sub = "inactive", "dead"
	case "reset-failed":
		u.Active = "inactive"
	case "enable":
		u.File = "enabled"
	case "disable", "unmask":
		u.File = "disabled"
	case "mask":
		u.File, u.Load = "masked", "masked"
	default:
		return &programError{args: args, code: 1, stderr: "the fake does not know " + verb}
	}
	return nil
}

func show(s *fakeState, names []string) string {
	var blocks []string
	for _, name := range names {
		if name == "*.swap" {
			for other, u := range s.Units {
				if strings.HasSuffix(other, ".swap") {
					blocks = append(blocks, block(other, u))
				}
			}
			continue
		}
		u := s.Units[name]
		if u == nil {
			u = &fakeUnit{Load: "not-found", Active: "inactive", Sub: "dead"}
		}
		blocks = append(blocks, block(name, u))
	}
	return strings.Join(blocks, "\n")
}

func block(name string, u *fakeUnit) string {
	stale, invocation := "no", ""
	if u.Active == "active" {
		invocation = fmt.Sprintf("start-%d", u.Starts)
	}
	if u.Stale {
		stale = "yes"
	}
	return fmt.Sprintf("Id=%s\nNames=%s\nLoadState=%s\nActiveState=%s\nSubState=%s\nUnitFileState=%s\nNeedDaemonReload=%s\nResult=%s\nMainPID=7\nNRestarts=2\nInvocationID=%s\n",
		name, name, u.Load, u.Active, u.Sub, u.File, stale, u.Result, invocation)
}

// plan returns the changes of a plan, and fails where resources could not be read
// unless one of the changes says so.
func plan(t *testing.T, c *Converger, q Request) []Change {
	t.Helper()
	return collect(t, c.Plan, q)
}

func apply(t *testing.T, c *Converger, q Request) []Change {
	t.Helper()
	return collect(t, c.Apply, q)
}

func collect(t *testing.T, f func(context.Context, Request, func(Change)) error, q Request) []Change {
	t.Helper()
	var changes []Change
	failed := false
	err := f(t.Context(), q, func(c Change) {
		failed = failed || c.Error != ""
		changes = append(changes, c)
	})
	if err != nil && (!errors.Is(err, ErrFailed) || !failed) {
		t.Fatal(err)
	}
	if err == nil && failed {
		t.Error("a change carries an error, but none is returned")
	}
	return changes
}
