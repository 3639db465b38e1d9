package converger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

const archiveMode = 0o644

func (v *view) planArchive(a *Archive) ([]action, error) {
	change := Change{Action: "install", Detail: a.detail()}
	take := func(_ context.Context, w *writer) error { return w.take(a) }
	info, err := os.Lstat(v.at(a.Path))
	switch {
	case notThere(err):
		return one(change, take), nil
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, errors.New("is a directory")
	case !info.Mode().IsRegular():
		return one(change, take), nil
	}
	sum, err := v.digests.of(a.Path)
	if err != nil {
		return nil, err
	}
	if sum != a.SHA256 {
		change.Before, change.After = sum, a.SHA256
		return one(change, take), nil
	}
	if details := (attributes{mode: archiveMode}).differences(info); details != nil {
		return one(Change{Action: "update", Detail: strings.Join(details, ", ")}, v.setAttributes(a.Path, archiveMode, "", "")), nil
	}
	return nil, nil
}

func (a *Archive) detail() string {
	text := "SHA-256 " + a.SHA256[:12] + "…"
	if a.Size > 0 {
		text = fmt.Sprintf("%d MiB, ", (a.Size+1<<20-1)>>20) + text
	}
	return text
}

// take moves the file to its place: so it needs its space once. Where that is on
// another file system it is copied first.
func (w *writer) take(a *Archive) error {
	if err := w.arrived(a.Source, a.SHA256); err != nil {
		return err
	}
	err := w.place(a.Path, func(t string) error {
		if err := os.Rename(w.view.at(a.Source), t); err == nil {
			return setPath(t, attributes{mode: archiveMode})
		}
		return copyVerified(t, w.view.at(a.Source), a.SHA256, archiveMode)
	})
	if err != nil {
		return err
	}
	if err := os.Remove(w.view.at(a.Source)); err != nil && !notThere(err) {
		return err
	}
	// Moving changed the times that the kept digests are told by.
	w.view.digests.keep(a.Path, a.SHA256)
	w.view.digests.save()
	return nil
}

// arrived is nil where a file that was to be copied to the machine is there and whole.
func (w *writer) arrived(source, want string) error {
	sum, err := w.view.digests.of(source)
	switch {
	case notThere(err):
		return fmt.Errorf("its content is not on this machine: %s is missing", source)
	case err != nil:
		return err
	case sum != want:
		return fmt.Errorf("%s is not what it should be: its SHA-256 is %s, but %s is expected", source, sum, want)
	}
	return nil
}
