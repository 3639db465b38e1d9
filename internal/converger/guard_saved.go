package converger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// savedMost is the largest file that a guard saves, in bytes.
const savedMost = 4 << 20

// saved is what stood at a path: a regular file, a symbolic link, a directory (of
// which only its attributes are saved), or nothing.
type saved struct {
	Path    string `json:"path"`
	Kind    string `json:"kind"` // file, link, directory, absent
	Content []byte `json:"content,omitempty"`
	Target  string `json:"target,omitempty"`
	Mode    uint32 `json:"mode,omitempty"`
	UID     int    `json:"uid,omitempty"`
	GID     int    `json:"gid,omitempty"`
}

func (v *view) save(path string) (saved, error) {
	s := saved{Path: path}
	info, err := os.Lstat(v.at(path))
	if notThere(err) {
		s.Kind = "absent"
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		s.Mode, s.UID, s.GID = stat.Mode&0o7777, int(stat.Uid), int(stat.Gid)
	}
	switch {
	case info.Mode().IsRegular():
		if info.Size() > savedMost {
			return s, fmt.Errorf("it has %d MiB, more than may be guarded", info.Size()>>20)
		}
		s.Kind = "file"
		s.Content, err = os.ReadFile(v.at(path))
	case info.Mode()&fs.ModeSymlink != 0:
		s.Kind = "link"
		s.Target, err = os.Readlink(v.at(path))
	case info.IsDir():
		s.Kind = "directory"
	default:
		err = fmt.Errorf("it is a %s", info.Mode().Type())
	}
	return s, err
}

// is reports whether the path holds what was saved already. It spares writes, so
// a full disk hinders only where something really is to be put back.
func (s saved) is(v *view) bool {
	now, err := v.save(s.Path)
	return err == nil && now.Kind == s.Kind && bytes.Equal(now.Content, s.Content) && now.Target == s.Target &&
		(s.Kind == "link" || s.Kind == "absent" || now.Mode == s.Mode && now.UID == s.UID && now.GID == s.GID)
}

// restore puts everything back, then makes it active. It goes on where one thing
// fails, and may be called again.
func (w *writer) restore(ctx context.Context, g *guard) error {
	var errs []error
	reload := false
	for _, s := range slices.Backward(g.Saved) {
		os.Remove(temp(w.view.at(s.Path))) // of a converger that was killed: it would keep a directory
		if s.is(w.view) {
			continue
		}
		reload = reload || isUnitFile(s.Path)
		if err := w.restoreOne(s); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Path, err))
		}
	}
	booted := g.BootID != w.pending.BootID
	if reload {
		errs = append(errs, w.run(ctx, "systemctl", "daemon-reload"))
	}
	for _, c := range g.Commands {
		if !booted || c.Boot {
			errs = append(errs, w.run(ctx, c.Args...))
		}
	}
	return errors.Join(errs...)
}

func (w *writer) restoreOne(s saved) error {
	switch s.Kind {
	case "file":
		return w.replace(s.Path, bytes.NewReader(s.Content), attributes{s.Mode, s.UID, s.GID})
	case "link":
		return w.place(s.Path, func(t string) error { return os.Symlink(s.Target, t) })
	case "directory":
		if err := os.MkdirAll(w.view.at(s.Path), 0o700); err != nil {
			return w.explain(s.Path, err)
		}
		d, err := os.Open(w.view.at(s.Path))
		if err != nil {
			return err
		}
		defer d.Close()
		return attributes{s.Mode, s.UID, s.GID}.set(d)
	}
	// A directory that was made goes only when nobody put something there.
	err := os.Remove(w.view.at(s.Path))
	if err != nil && !notThere(err) && !errors.Is(err, syscall.ENOTEMPTY) {
		return err
	}
	return w.syncDir(s.Path)
}

// guarded reports whether the request has anything that is made under a guard.
func (q Request) guarded() bool {
	return slices.ContainsFunc(q.State.Resources, func(r Resource) bool { return r.Guarded && r.hasTag(q.Tags) })
}

// markGuarded says of each action of a guarded resource what it replaces and how
// it is undone.
func (v *view) markGuarded(r Resource, actions []action) {
	for i := range actions {
		a := &actions[i]
		a.guarded = true
		switch {
		case r.File != nil:
			a.replaces = []string{r.File.Path}
		case r.Directory != nil:
			a.replaces = []string{r.Directory.Path}
		case r.Absent != nil:
			a.replaces = []string{r.Absent.Path}
		case r.Link != nil:
			a.replaces = []string{r.Link.Path}
		case r.Unit != nil:
			a.undo = unitUndo(r.Unit.Name, a.Change)
		case r.Nftables != nil:
			a.replaces = []string{r.Nftables.Path}
			a.undo = []undo{tableUndo(r.Nftables, v.tables[r.Nftables.Table].is)}
		}
	}
}

// unitUndo returns what undoes a change of a unit. What was reloaded is reloaded
// again, with the old files.
func unitUndo(name string, c Change) []undo {
	switch c.Action {
	case "start":
		return []undo{{Args: []string{"systemctl", "stop", "--", name}}}
	case "stop":
		return []undo{{Args: []string{"systemctl", "start", "--", name}}}
	case "restart":
		return []undo{{Args: []string{"systemctl", "restart", "--", name}}}
	case "reload":
		return []undo{{Args: []string{"systemctl", "try-reload-or-restart", "--", name}}}
	case "enable":
		return []undo{{Args: []string{"systemctl", "--quiet", "disable", "--", name}, Boot: true}}
	case "disable":
		return []undo{{Args: []string{"systemctl", "--quiet", "enable", "--", name}, Boot: true}}
	}
	switch c.Detail {
	case "mask":
		return []undo{{Args: []string{"systemctl", "--quiet", "unmask", "--", name}, Boot: true}}
	case "unmask":
		return []undo{{Args: []string{"systemctl", "--quiet", "mask", "--", name}, Boot: true}}
	}
	return nil
}
