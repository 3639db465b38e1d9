package sandbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
)

// home returns the directory of all sandboxes: K3LAB_SANDBOX_DIR, else one for
// the computer when root, else the user's.
func home() (string, error) {
	if dir := os.Getenv("K3LAB_SANDBOX_DIR"); dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return "", fault.New(fault.Invalid, "K3LAB_SANDBOX_DIR", "", "%w", err)
		}
		return abs, nil
	}
	if os.Geteuid() == 0 {
		return "/var/lib/k3lab/sandbox", nil
	}
	state := os.Getenv("XDG_STATE_HOME")
	if state == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return "", fault.New(fault.Failed, "sandbox", "set XDG_STATE_HOME", "no place for its state: %w", err)
		}
		state = filepath.Join(user, ".local", "state")
	}
	return filepath.Join(state, "k3lab", "sandbox"), nil
}

// place is where one sandbox keeps its state.
type place string

func placeOf(name string) (place, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	dir, err := home()
	return place(filepath.Join(dir, name)), err
}

func (p place) file(name string) string { return filepath.Join(string(p), name) }

func (p place) infoFile() string { return p.file("sandbox.json") }
func (p place) api() string      { return p.file("api") }
func (p place) logFile() string  { return p.file("api.log") }
func (p place) pidFile() string  { return p.file("api.pid") }
func (p place) machines() string { return p.file("machines") }

// tag is part of the name of everything the sandbox makes outside its directory.
func (p place) tag() string {
	sum := sha256.Sum256([]byte(p))
	return hex.EncodeToString(sum[:4])
}

// exists reports whether anything of the sandbox's state is there.
func (p place) exists() bool {
	_, err := os.Lstat(string(p))
	return err == nil
}

// load reads the sandbox's description; nil when there is none.
func (p place) load() (*Info, error) {
	b, err := os.ReadFile(p.infoFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var info Info
	if err == nil {
		err = json.Unmarshal(b, &info)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fault.New(fault.Failed, p.infoFile(), "sudo", "%w", err)
	}
	if err != nil {
		return nil, fault.New(fault.Failed, p.infoFile(), "k3lab sandbox down "+filepath.Base(string(p)), "%w", err)
	}
	return &info, nil
}

func (p place) save(info *Info) error {
	b, err := json.MarshalIndent(info, "", "  ")
	if err == nil {
		err = os.MkdirAll(string(p), 0o700)
	}
	if err == nil {
		err = renameio.WriteFile(p.infoFile(), append(b, '\n'), 0o600)
	}
	if err != nil {
		return fault.New(fault.Failed, p.infoFile(), "", "%w", err)
	}
	return nil
}

// List returns the names of the sandboxes, sorted.
func List() ([]string, error) {
	dir, err := home()
	if err != nil {
		return nil, err
	}
	found, err := filepath.Glob(filepath.Join(dir, "*", "sandbox.json"))
	if err != nil {
		return nil, fault.New(fault.Failed, dir, "", "%w", err)
	}
	var out []string
	for _, f := range found {
		out = append(out, filepath.Base(filepath.Dir(f)))
	}
	sort.Strings(out)
	return out, nil
}

// lock makes this process the only one that starts or removes sandboxes of the
// directory. The kernel drops the lock with the process, so none is ever stale.
// unlock also removes the directory when nothing is left in it.
func lock(ctx context.Context, dir string, r report.Reporter) (unlock func(), err error) {
	fail := func(err error) (func(), error) {
		return nil, fault.New(fault.Failed, dir, "", "sandbox lock: %w", err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for told := false; ; {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fail(err)
		}
		f, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed by the process we waited for
		}
		if err != nil {
			return fail(err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && same(f, dir) {
			return func() {
				removeEmpty(dir)
				f.Close()
			}, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return fail(err)
		}
		if err != nil && !told {
			r.Report(report.Event{Kind: report.Notice, Message: "waiting for another k3lab sandbox command to finish"})
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// same reports whether the open directory is the one found under the path now.
func same(f *os.File, path string) bool {
	a, aerr := f.Stat()
	b, berr := os.Stat(path)
	return aerr == nil && berr == nil && os.SameFile(a, b)
}

// removeEmpty removes a directory that k3lab made, and its parent, as long as
// they are empty. One the user has chosen stays.
func removeEmpty(dir string) {
	if parent := filepath.Dir(dir); filepath.Base(parent) == "k3lab" && os.Remove(dir) == nil {
		os.Remove(parent)
	}
}
