package converger

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func (v *view) planAbsent(a *Absent) ([]action, error) {
	info, err := os.Lstat(v.at(a.Path))
	if notThere(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	change := Change{Action: "delete"}
	emptied := false
	if info.IsDir() {
		if strings.Count(a.Path, "/") < 2 {
			return nil, errors.New("is a top directory of the machine; that is never removed")
		}
		change.Detail = "directory with what it holds"
		if points := v.mountsBelow(a.Path); len(points) > 0 {
			if !a.Unmount {
				return nil, fmt.Errorf("is not removed, because %s is mounted", points[0])
			}
			emptied = points[0] == v.at(a.Path)
		}
	}
	if emptied {
		change.Detail = "what the mounted directory holds"
		if entries, err := os.ReadDir(v.at(a.Path)); err != nil || len(entries) == 0 {
			return nil, err
		}
	}
	return one(change, func(_ context.Context, w *writer) error {
		w.noteUnitFile(a.Path)
		if a.Unmount {
			if err := w.unmountBelow(a.Path); err != nil {
				return err
			}
		}
		if emptied {
			return w.empty(a.Path)
		}
		if err := os.RemoveAll(w.view.at(a.Path)); err != nil {
			return err
		}
		return w.syncDir(a.Path)
	}), nil
}

// unmountBelow unmounts what is mounted below a directory, not at it. What is in
// use goes from its place all the same, so that nothing of it is removed.
func (w *writer) unmountBelow(path string) error {
	for _, point := range slices.Backward(w.view.mountsBelow(path)) {
		if point == w.view.at(path) {
			continue
		}
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("is not removed: unmount %s: %w", point, err)
		}
	}
	for _, point := range w.view.mountsBelow(path) {
		if point != w.view.at(path) {
			return fmt.Errorf("is not removed, because %s is mounted again", point)
		}
	}
	return nil
}

func (w *writer) empty(path string) error {
	entries, err := os.ReadDir(w.view.at(path))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(w.view.at(path), e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// mountsBelow returns the mount points at and below path, each after the one it
// is mounted in.
func (v *view) mountsBelow(path string) []string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	prefix := v.at(path)
	var points []string
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 5 {
			continue
		}
		if point := unescaped(fields[4]); point == prefix || strings.HasPrefix(point, prefix+"/") {
			points = append(points, point)
		}
	}
	slices.Sort(points)
	return points
}

// unescaped undoes how the kernel writes blanks in a path, as \040.
func unescaped(path string) string {
	for i := 0; i+3 < len(path); i++ {
		if path[i] != '\\' {
			continue
		}
		if n, err := strconv.ParseUint(path[i+1:i+4], 8, 8); err == nil {
			path = path[:i] + string([]byte{byte(n)}) + path[i+4:]
		}
	}
	return path
}
