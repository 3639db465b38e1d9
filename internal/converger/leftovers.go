package converger

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// planLeftovers removes files of ours that are no longer wanted.
func (v *view) planLeftovers(l *Leftovers) ([]action, error) {
	entries, err := os.ReadDir(v.at(l.Dir))
	if notThere(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if fits, _ := path.Match(l.Pattern, e.Name()); !fits || !e.Type().IsRegular() || slices.Contains(l.Keep, e.Name()) {
			continue
		}
		ours, err := v.begins(path.Join(l.Dir, e.Name()), l.Mark)
		if err != nil {
			return nil, err
		}
		if ours {
			names = append(names, e.Name())
		}
	}
	if names == nil {
		return nil, nil
	}
	return one(Change{Action: "delete", Detail: strings.Join(names, ", ")}, func(_ context.Context, w *writer) error {
		for _, name := range names {
			if err := os.Remove(w.view.at(path.Join(l.Dir, name))); err != nil && !notThere(err) {
				return err
			}
		}
		return w.syncDir(path.Join(l.Dir, names[0]))
	}), nil
}

// begins reports whether a file begins with a text.
func (v *view) begins(file, text string) (bool, error) {
	f, err := os.Open(v.at(file))
	if notThere(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	start := make([]byte, len(text))
	if _, err := io.ReadFull(f, start); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false, nil
		}
		return false, err
	}
	return string(start) == text, nil
}

func (l *Leftovers) validate() error {
	_, err := path.Match(l.Pattern, "")
	if err == nil && (l.Pattern == "" || strings.ContainsAny(l.Pattern, "/\n\x00") || strings.Trim(l.Pattern, "*?") == "") {
		err = errors.New("its pattern is that of any file")
	}
	return errors.Join(absolute(l.Dir), err)
}

// at is the place that names the resource.
func (l *Leftovers) at() string { return filepath.Join(l.Dir, l.Pattern) }
