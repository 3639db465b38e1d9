package apps

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"sigs.k8s.io/yaml"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/kube"
)

// release is what Helm installs under one name.
type release struct {
	app       *App
	name      string
	namespace string
	values    map[string]any
	origin    map[string]string // the file each first key of values comes from
	needs     []string          // names of releases
	missing   []string          // apps that are needed and cannot be read
	// plainObjects says that there is no chart: its version means nothing.
	plainObjects bool
	// load reads the chart anew each time: rendering changes what it is given.
	load func() (*chart.Chart, error)
}

// releases are what the apps become: the chart, and after it the plain objects.
// An app that cannot be read becomes none; its Err says why.
func releases(root string, list []*App) []*release {
	var out []*release
	last := map[string]string{} // app → its last release
	for _, a := range list {
		if a.Err != nil {
			continue
		}
		own, err := a.releases(root)
		if err != nil {
			a.refuse(err)
			continue
		}
		for i, r := range own {
			if i > 0 {
				r.needs = []string{own[i-1].name}
			}
			last[a.Name] = r.name
		}
		out = append(out, own...)
	}
	for i, r := range out {
		if i > 0 && out[i-1].app == r.app {
			continue
		}
		for _, n := range r.app.Spec.Needs {
			if last[n] == "" {
				r.missing = append(r.missing, n)
				continue
			}
			r.needs = append(r.needs, last[n])
		}
	}
	return out
}

func (a *App) releases(root string) ([]*release, error) {
	dir := filepath.Join(root, filepath.FromSlash(a.Dir))
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { _, err := os.Stat(filepath.Join(dir, n)); return err == nil })
	}
	at := a.Spec.Chart
	switch {
	case a.got != "":
	case at != "":
	case has("Chart.yaml"):
		at = "."
	case has("chart/Chart.yaml"):
		at = "chart"
	default:
		r, err := a.plain(dir, a.Name)
		if err != nil {
			return nil, err
		}
		return []*release{r}, nil
	}
	values, origin, err := a.values(dir)
	if err != nil {
		return nil, err
	}
	from := filepath.Join(dir, filepath.FromSlash(at))
	if a.got != "" {
		from = a.got
	}
	r := &release{app: a, name: a.Name, namespace: a.Spec.Namespace, values: values, origin: origin, load: func() (*chart.Chart, error) { return a.local(at, from) }}
	if a.Spec.Repository == "" || a.got != "" {
		if _, err := r.load(); err != nil {
			return nil, err
		}
	}
	out := []*release{r}
	if has("manifests") {
		m, err := a.plain(filepath.Join(dir, "manifests"), a.Name+"-manifests")
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func (a *App) local(at, from string) (*chart.Chart, error) {
	if _, err := os.Stat(from); err != nil {
		return nil, fault.New(fault.Invalid, path.Join(a.Dir, settingsFile), "put it there, or change chart", "chart: there is no %s", path.Join(a.Dir, at))
	}
	c, err := loader.Load(from)
	if err != nil {
		return nil, fault.New(fault.Invalid, path.Join(a.Dir, at), "helm lint "+path.Join(a.Dir, at), "it is no chart: %w", err)
	}
	if problems := missing(c); len(problems) > 0 {
		return nil, fault.New(fault.Invalid, path.Join(a.Dir, at), "helm dependency update "+path.Join(a.Dir, at), "charts it needs are not in it: %s", strings.Join(problems, ", "))
	}
	return c, nil
}

// missing are the dependencies that a chart names and does not hold.
func missing(c *chart.Chart) []string {
	var out []string
	for _, d := range c.Metadata.Dependencies {
		if !slices.ContainsFunc(c.Dependencies(), func(h *chart.Chart) bool { return h.Name() == d.Name }) {
			out = append(out, d.Name)
		}
	}
	return out
}

// values are those of values.yaml, and over them those of values.user.yaml. In a
// chart's own folder values.yaml is the chart's.
func (a *App) values(dir string) (values map[string]any, origin map[string]string, err error) {
	out, origin := map[string]any{}, map[string]string{}
	for _, name := range []string{"values.yaml", "values.user.yaml"} {
		src, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path.Join(a.Dir, name), err)
		}
		v, err := common.ReadValues(src)
		if err != nil {
			return nil, nil, fault.New(fault.Invalid, path.Join(a.Dir, name), "", "it is not YAML: %w", err)
		}
		for k := range v {
			origin[k] = name
		}
		out = loader.MergeMaps(out, v)
	}
	return out, origin, nil
}

// plainNote marks the chart that stands for plain objects.
const plainNote = "k3lab.io/plain"

// plain makes a release of a kustomization, or of the YAML files of a folder.
func (a *App) plain(dir, name string) (*release, error) {
	text, err := a.plainText(dir)
	if err != nil {
		return nil, err
	}
	return &release{app: a, name: name, namespace: a.Spec.Namespace, values: map[string]any{}, plainObjects: true, load: func() (*chart.Chart, error) {
		return &chart.Chart{
			Metadata: &chart.Metadata{APIVersion: chart.APIVersionV2, Name: name, Version: "1.0.0", Type: "application", Annotations: map[string]string{plainNote: "true"}},
			// The objects are a file that the template only shows, because what looks
			// like a template in them is none.
			Templates: []*common.File{{Name: "templates/objects.yaml", Data: []byte(`{{ .Files.Get "objects.yaml" }}`)}},
			Files:     []*common.File{{Name: "objects.yaml", Data: []byte(text)}},
		}, nil
	}}, nil
}

func (a *App) plainText(dir string) (string, error) {
	var s strings.Builder
	if _, err := os.Stat(filepath.Join(dir, "kustomization.yaml")); err == nil {
		built, err := kube.Build(dir)
		for _, o := range built {
			text, err := yaml.Marshal(o.Object)
			if err != nil {
				return "", fmt.Errorf("%s: %w", kube.Name(o), err)
			}
			s.WriteString("---\n" + string(text))
		}
		return s.String(), err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if slices.Contains([]string{settingsFile, "values.yaml", "values.user.yaml"}, filepath.Base(f)) {
			continue
		}
		src, err := os.ReadFile(f)
		if err != nil {
			return "", fmt.Errorf("apps: %w", err)
		}
		s.WriteString("---\n" + strings.TrimSuffix(string(src), "\n") + "\n")
	}
	if s.Len() == 0 {
		return "", fault.New(fault.Invalid, a.Dir, "put a chart, a kustomization.yaml or YAML files of objects into it", "there is no app in this folder")
	}
	return s.String(), nil
}
