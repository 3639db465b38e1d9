package release

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/google/renameio/v2"

	"github.com/k3lab/k3lab/internal/fault"
)

// LockFile is where digests are written down, in a workspace and in git.
const LockFile = "k3lab.lock"

// Digests are hex SHA-256 digests by what they are of: see Key.
type Digests map[string]string

const lockHeader = "# Digests of what k3lab downloads for this lab: a file with another one is refused.\n" +
	"# Written by k3lab lock, and by the first k3lab up of a version. Keep it in git.\n"

var (
	hexDigest  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	lockDigest = regexp.MustCompile(`^sha256:([0-9a-f]{64})$`)
)

// Key names one of the files of a version of K3s.
func Key(version, name string) string { return "k3s/" + version + "/" + name }

// ReadDigests reads a lock file; one that is not there is empty.
func ReadDigests(path string) (Digests, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Digests{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", LockFile, err)
	}
	written := map[string]string{}
	if err := yaml.Unmarshal(text, &written); err != nil {
		return nil, fault.New(fault.Invalid, LockFile, "git checkout "+LockFile, "it cannot be read: %s", firstLine(err))
	}
	d := Digests{}
	for _, key := range slices.Sorted(maps.Keys(written)) {
		m := lockDigest.FindStringSubmatch(written[key])
		if m == nil {
			return nil, fault.New(fault.Invalid, LockFile, "delete that line, then k3lab lock", "%s: %q is not sha256: and 64 hex digits", key, written[key])
		}
		d[key] = m[1]
	}
	return d, nil
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// With returns the digests with others added.
func (d Digests) With(more Digests) Digests {
	out := maps.Clone(d)
	if out == nil {
		out = Digests{}
	}
	maps.Copy(out, more)
	return out
}

// KeepVersions returns the digests without those of other versions of K3s.
func (d Digests) KeepVersions(versions ...string) Digests {
	out := maps.Clone(d)
	maps.DeleteFunc(out, func(key, _ string) bool {
		rest, k3s := strings.CutPrefix(key, "k3s/")
		version, _, _ := strings.Cut(rest, "/")
		return k3s && !slices.Contains(versions, version)
	})
	return out
}

// Text is the lock file: one entry a line, sorted, so that git merges it and shows
// what has changed.
func (d Digests) Text() string {
	var s strings.Builder
	s.WriteString(lockHeader)
	for _, key := range slices.Sorted(maps.Keys(d)) {
		fmt.Fprintf(&s, "%s: sha256:%s\n", key, d[key])
	}
	return s.String()
}

// Write replaces a lock file.
func (d Digests) Write(path string) error {
	if err := renameio.WriteFile(path, []byte(d.Text()), 0o644); err != nil {
		return fmt.Errorf("%s: %w", LockFile, err)
	}
	return nil
}

// Changed lists what differs between two sets: the names that come, go, or have
// another digest.
func Changed(from, to Digests) []string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(from.With(to))) {
		switch {
		case from[key] == "":
			out = append(out, "+ "+key)
		case to[key] == "":
			out = append(out, "- "+key)
		case from[key] != to[key]:
			out = append(out, "~ "+key)
		}
	}
	return out
}
