package converger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"
)

// shownText is the longest text of a file that a change carries, in bytes.
const shownText = 64 << 10

func (v *view) planFile(f *File) ([]action, error) {
	want, err := v.attributes(f.Mode, f.Owner, f.Group)
	if err != nil {
		return nil, err
	}
	change := Change{Action: "update"}
	make := func(ctx context.Context, w *writer) error {
		a, err := w.attributes(f.Mode, f.Owner, f.Group)
		if err != nil {
			return err
		}
		if err := w.check(ctx, f); err != nil {
			return err
		}
		if err := w.unclaimed(ctx, f); err != nil {
			return err
		}
		w.noteUnitFile(f.Path)
		return w.replace(f.Path, strings.NewReader(f.Content), a)
	}
	info, err := os.Lstat(v.at(f.Path))
	if notThere(err) && f.IfThere {
		return nil, nil
	}
	if notThere(err) {
		change.Action, change.Detail, change.After = "create", fmt.Sprintf("mode %04o", f.Mode), shown(f, f.Content)
		return one(change, make), nil
	}
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errors.New("is a directory")
	}
	var details []string
	keep := f.KeepIf != "" && v.exists(f.KeepIf)
	switch {
	case !info.Mode().IsRegular() && info.Mode()&fs.ModeSymlink == 0:
		return nil, fmt.Errorf("is a %s and no regular file", info.Mode().Type())
	case !info.Mode().IsRegular():
		if keep {
			return nil, nil
		}
		leads, err := os.Readlink(v.at(f.Path))
		if err != nil {
			return nil, err
		}
		details = append(details, "a symbolic link becomes a file")
		change.Before, change.After = "symbolic link → "+leads+"\n", shown(f, f.Content)
	case !keep:
		is, same, err := v.compare(f, info)
		if err != nil {
			return nil, err
		}
		if !same {
			what := "content"
			if f.Secret {
				what = "secret content"
			}
			details = append(details, what)
			change.Before, change.After = shown(f, is), shown(f, f.Content)
		}
	}
	if info.Mode().IsRegular() {
		details = append(details, want.differences(info)...)
	}
	if details == nil {
		return nil, nil
	}
	change.Detail = strings.Join(details, ", ")
	if keep {
		make = v.setAttributes(f.Path, f.Mode, f.Owner, f.Group)
	}
	return one(change, make), nil
}

// checkedPath holds content while a program looks at it.
const checkedPath = memoryDir + "/checked"

// check has the file's program look at the content before anything reads it.
func (w *writer) check(ctx context.Context, f *File) error {
	if len(f.Check) == 0 {
		return nil
	}
	if err := w.replace(checkedPath, strings.NewReader(f.Content), attributes{mode: 0o600}); err != nil {
		return err
	}
	defer os.Remove(w.view.at(checkedPath))
	args := slices.Clone(f.Check)
	for i, arg := range args {
		if arg == "{}" {
			args[i] = w.view.at(checkedPath)
		}
	}
	if err := w.run(ctx, args...); err != nil {
		return fmt.Errorf("not put in place: %w", err)
	}
	return nil
}

// compare reads the file only as far as needed to know whether it is as wanted
// or to show what it says.
func (v *view) compare(f *File, info fs.FileInfo) (is string, same bool, err error) {
	if info.Size() != int64(len(f.Content)) && info.Size() > shownText {
		return "", false, nil
	}
	content, err := os.ReadFile(v.at(f.Path))
	if err != nil {
		return "", false, err
	}
	return string(content), string(content) == f.Content, nil
}

// shown is what people may see of a file's text.
func shown(f *File, text string) string {
	if f.Secret || len(text) > shownText || !utf8.ValidString(text) {
		return ""
	}
	return text
}

// unknownID stands for a user that a package may bring; it is looked up again
// when the change is made.
const unknownID = -1

func (v *view) attributes(mode uint32, owner, group string) (attributes, error) {
	uid, err := v.users.id(owner)
	if err == nil {
		var gid int
		if gid, err = v.groups.id(group); err == nil {
			return attributes{mode, uid, gid}, nil
		}
	}
	if v.packagesPlanned() {
		return attributes{mode, unknownID, unknownID}, nil
	}
	return attributes{}, fmt.Errorf("owner: %w", err)
}

// attributes are looked up anew where a package may have brought a user.
func (w *writer) attributes(mode uint32, owner, group string) (attributes, error) {
	users, groups := w.view.readNames("/etc/passwd"), w.view.readNames("/etc/group")
	uid, err := users.id(owner)
	if err != nil {
		return attributes{}, fmt.Errorf("owner: %w", err)
	}
	gid, err := groups.id(group)
	if err != nil {
		return attributes{}, fmt.Errorf("group: %w", err)
	}
	return attributes{mode, uid, gid}, nil
}

// differences says in words how a file's attributes differ from those wanted.
func (a attributes) differences(info fs.FileInfo) []string {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	var out []string
	if is := stat.Mode & 0o7777; is != a.mode {
		out = append(out, fmt.Sprintf("mode %04o → %04o", is, a.mode))
	}
	if a.uid == unknownID {
		return append(out, "owner")
	}
	if int(stat.Uid) != a.uid || int(stat.Gid) != a.gid {
		out = append(out, fmt.Sprintf("owner %d:%d → %d:%d", stat.Uid, stat.Gid, a.uid, a.gid))
	}
	return out
}

// setAttributes is the way to change only who may do what.
func (v *view) setAttributes(path string, mode uint32, owner, group string) func(context.Context, *writer) error {
	return func(_ context.Context, w *writer) error {
		a, err := w.attributes(mode, owner, group)
		if err != nil {
			return err
		}
		f, err := os.Open(w.view.at(path))
		if err != nil {
			return err
		}
		defer f.Close()
		return a.set(f)
	}
}

func (v *view) planDirectory(d *Directory) ([]action, error) {
	want, err := v.attributes(d.Mode, d.Owner, d.Group)
	if err != nil {
		return nil, err
	}
	set := v.setAttributes(d.Path, d.Mode, d.Owner, d.Group)
	// A link to a directory is one: people move /var/lib/rancher to a bigger disk that way.
	info, err := os.Stat(v.at(d.Path))
	switch {
	case notThere(err):
		if v.exists(d.Path) {
			return nil, errors.New("is a symbolic link that leads nowhere")
		}
		return one(Change{Action: "create", Detail: fmt.Sprintf("mode %04o", d.Mode)}, func(ctx context.Context, w *writer) error {
			if err := os.MkdirAll(filepath.Dir(w.view.at(d.Path)), 0o755); err != nil {
				return w.explain(d.Path, err)
			}
			if err := os.Mkdir(w.view.at(d.Path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return w.explain(d.Path, err)
			}
			return set(ctx, w)
		}), nil
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, errors.New("is there, but is no directory")
	}
	if details := want.differences(info); details != nil {
		return one(Change{Action: "update", Detail: strings.Join(details, ", ")}, set), nil
	}
	return nil, nil
}

func (v *view) planLink(l *Link) ([]action, error) {
	if l.MustLead && !v.leads(l) && !v.packagesPlanned() {
		return nil, fmt.Errorf("there is no %s on this machine", l.Target)
	}
	change := Change{Action: "update", Detail: "→ " + l.Target}
	info, err := os.Lstat(v.at(l.Path))
	switch {
	case notThere(err):
		change.Action = "create"
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, errors.New("is a directory")
	case info.Mode()&fs.ModeSymlink != 0:
		is, err := os.Readlink(v.at(l.Path))
		if err != nil {
			return nil, err
		}
		if is == l.Target {
			return nil, nil
		}
		change.Detail = is + " → " + l.Target
	}
	return one(change, func(_ context.Context, w *writer) error {
		w.noteUnitFile(l.Path)
		return w.place(l.Path, func(t string) error { return os.Symlink(l.Target, t) })
	}), nil
}

// leads reports whether the link's target is there.
func (v *view) leads(l *Link) bool {
	target := l.Target
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(l.Path), target)
	}
	_, err := os.Stat(v.at(target))
	return err == nil
}
