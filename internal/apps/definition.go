package apps

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/k3lab/k3lab/internal/fault"
)

// Dir holds the apps of a workspace, one folder each.
const Dir = "kubernetes/apps"

// settingsFile is what an app's folder may hold beside the app itself.
const settingsFile = "app.yaml"

// defaultTimeout is how long an app may take to become healthy.
const defaultTimeout = 5 * time.Minute

// App is one application: a folder of the workspace and what its app.yaml says.
type App struct {
	Name string
	Dir  string // relative to the workspace, with slashes
	Spec Spec
	got  string // the archive of its chart, where that comes from a repository
	// Err is why nothing can be done with the app; the others are not held up.
	Err error
}

// Spec is an app.yaml. All of it may be left out.
type Spec struct {
	Enabled     *bool    `yaml:"enabled"`      // false: as if the folder were not there
	Chart       string   `yaml:"chart"`        // folder or .tgz beside app.yaml; with repository, its name there
	Repository  string   `yaml:"repository"`   // of charts: https://… or oci://…
	Version     string   `yaml:"version"`      // of the chart in the repository
	Namespace   string   `yaml:"namespace"`    // default: the app's name
	Needs       []string `yaml:"needs"`        // apps that must be healthy before
	Timeout     string   `yaml:"timeout"`      // until it is healthy; default 5m
	Health      []Probe  `yaml:"health"`       // further objects that must be there and healthy
	PodSecurity string   `yaml:"pod_security"` // Pod Security Standard that the namespace enforces
	Provides    string   `yaml:"provides"`     // what network policies let its namespace do
}

// Probe names an object that an app is not healthy without.
type Probe struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Name       string `yaml:"name"`
	Namespace  string `yaml:"namespace"` // default: the app's, where the kind has one
}

var (
	appName       = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$`)
	namespaceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

// Used reports whether the workspace in dir keeps apps at all. Where it does not,
// the cluster need not be asked.
func Used(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, filepath.FromSlash(Dir)))
	return err == nil
}

// Read returns the apps of the workspace in dir that are not switched off, sorted
// by name. What is wrong with one of them is in its Err.
func Read(dir string) ([]*App, error) {
	entries, err := os.ReadDir(filepath.Join(dir, filepath.FromSlash(Dir)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("apps: %w", err)
	}
	var out []*App
	off := map[string]bool{}
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		a := &App{Name: e.Name(), Dir: path.Join(Dir, e.Name())}
		if a.Err = a.read(dir); a.Err == nil && a.Spec.Enabled != nil && !*a.Spec.Enabled {
			off[a.Name] = true
			continue
		}
		out = append(out, a)
	}
	checkNeeds(out, off)
	return out, nil
}

func (a *App) settings() string { return path.Join(a.Dir, settingsFile) }

func (a *App) read(root string) error {
	if !appName.MatchString(a.Name) {
		return fault.New(fault.Invalid, a.Dir, "use a to z, 0 to 9 and -, at most 40 characters, beginning with a letter", "%q cannot be an app's name", a.Name)
	}
	src, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(a.settings())))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", a.settings(), err)
	}
	if err := yaml.NewDecoder(bytes.NewReader(src), yaml.Strict()).Decode(&a.Spec); err != nil && !errors.Is(err, io.EOF) {
		first, _, _ := strings.Cut(yaml.FormatError(err, false, false), "\n")
		return fault.New(fault.Invalid, a.settings(), "docs/applications.md lists the keys", "%s", first)
	}
	return a.check()
}

func (a *App) check() error {
	s := &a.Spec
	if s.Namespace == "" {
		s.Namespace = a.Name
	}
	if s.Timeout == "" {
		s.Timeout = defaultTimeout.String()
	}
	if !namespaceName.MatchString(s.Namespace) {
		return fault.New(fault.Invalid, a.settings(), "use a to z, 0 to 9 and -, at most 63 characters", "namespace: %q cannot be a namespace's name", s.Namespace)
	}
	if d, err := time.ParseDuration(s.Timeout); err != nil || d <= 0 {
		return fault.New(fault.Invalid, a.settings(), "write it as 5m or 90s", "timeout: %q is not a duration", s.Timeout)
	}
	if err := a.checkSource(); err != nil {
		return err
	}
	for i, p := range s.Health {
		if p.APIVersion == "" || p.Kind == "" || p.Name == "" {
			return fault.New(fault.Invalid, a.settings(), "name the object whole", "health[%d]: apiVersion, kind and name are needed", i)
		}
	}
	for _, one := range []struct {
		key, value string
		valid      []string
	}{
		{"pod_security", s.PodSecurity, []string{"privileged", "baseline", "restricted"}},
		{"provides", s.Provides, []string{"ingress", "monitoring"}},
	} {
		if one.value != "" && !slices.Contains(one.valid, one.value) {
			return fault.New(fault.Invalid, a.settings(), "valid: "+strings.Join(one.valid, ", "), "%s: %q is not known", one.key, one.value)
		}
	}
	return nil
}

func (a *App) timeout() time.Duration {
	d, err := time.ParseDuration(a.Spec.Timeout)
	if err != nil {
		return defaultTimeout // check has refused it already
	}
	return d
}

// checkNeeds refuses apps that need what is not there, or each other in a circle.
func checkNeeds(list []*App, off map[string]bool) {
	byName := map[string]*App{}
	for _, a := range list {
		byName[a.Name] = a
	}
	for _, a := range list {
		for _, n := range a.Spec.Needs {
			switch {
			case a.Err != nil || byName[n] != nil:
			case off[n]:
				a.Err = fault.New(fault.Invalid, a.settings(), "take it out of needs, or enable that app", "needs: %s is switched off", n)
			default:
				a.Err = fault.New(fault.Invalid, a.settings(), "take it out of needs, or add that app", "needs: there is no app %q", n)
			}
		}
	}
	for _, a := range list {
		if circle := circleFrom(a, byName, nil); circle != nil && a.Err == nil {
			a.Err = fault.New(fault.Invalid, a.settings(), "take one of them out of needs", "needs: %s need each other", strings.Join(circle, " → "))
		}
	}
}

// circleFrom is a way on which needs lead from an app back to itself.
func circleFrom(a *App, all map[string]*App, way []string) []string {
	if len(way) > 0 && way[0] == a.Name {
		return append(way, a.Name)
	}
	if slices.Contains(way, a.Name) {
		return nil // a circle of others
	}
	for _, n := range a.Spec.Needs {
		if all[n] == nil {
			continue
		}
		if c := circleFrom(all[n], all, append(slices.Clone(way), a.Name)); c != nil {
			return c
		}
	}
	return nil
}
