package apps

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"sort"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
	rel "helm.sh/helm/v4/pkg/release/v1"
	relutil "helm.sh/helm/v4/pkg/release/v1/util"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/kube"
)

// rendering is what a release consists of in this cluster.
type rendering struct {
	version string // of the chart
	hooks   []*rel.Hook
	objects []*unstructured.Unstructured
	crds    []*unstructured.Unstructured // those of the folder crds/, which Helm only installs
}

// render is what Helm would make of a release: the same engine, which may look
// things up in the cluster, with what this cluster really has.
func (r *release) render(ctx context.Context, config *rest.Config, caps *common.Capabilities, revision int) (*rendering, error) {
	c, err := r.load()
	if err != nil {
		return nil, err
	}
	invalid := func(err error) error {
		return fault.New(fault.Invalid, r.app.Dir, "helm template "+r.name+" "+r.app.Dir+", or change values.user.yaml", "%w", err)
	}
	values := util.MergeTables(map[string]any{}, r.values)
	if err := chartutil.ProcessDependencies(c, values); err != nil {
		return nil, invalid(err)
	}
	options := common.ReleaseOptions{Name: r.name, Namespace: r.namespace, Revision: revision, IsInstall: revision == 1, IsUpgrade: revision > 1}
	if v := c.Metadata.KubeVersion; v != "" && !chartutil.IsCompatibleRange(v, caps.KubeVersion.String()) {
		return nil, fault.New(fault.Invalid, r.app.Dir, "take another version of the chart", "chart %s %s wants Kubernetes %s, and this is %s", c.Name(), c.Metadata.Version, v, caps.KubeVersion.Version)
	}
	all, err := util.ToRenderValuesWithSchemaValidation(c, values, options, caps, false)
	if misfits := r.misfits(c.Name(), err); misfits != nil {
		return nil, misfits
	}
	if err != nil {
		return nil, invalid(err)
	}
	files, err := engine.New(config).RenderWithContext(ctx, c, all)
	if err != nil {
		return nil, invalid(err)
	}
	for name := range files {
		if strings.HasSuffix(name, "NOTES.txt") {
			delete(files, name)
		}
	}
	hooks, manifests, err := relutil.SortManifests(files, nil, relutil.InstallOrder)
	if err != nil {
		return nil, invalid(err)
	}
	out := &rendering{version: c.Metadata.Version, hooks: hooks}
	for _, m := range manifests {
		list, err := objects(m.Content)
		if err != nil {
			return nil, invalid(fmt.Errorf("%s: %w", m.Name, err))
		}
		for _, o := range list {
			own(o, r.name, r.namespace)
		}
		out.objects = append(out.objects, list...)
	}
	for _, f := range c.CRDObjects() {
		list, err := objects(string(f.File.Data))
		if err != nil {
			return nil, invalid(fmt.Errorf("%s: %w", f.Filename, err))
		}
		out.crds = append(out.crds, list...)
	}
	return out, nil
}

var (
	schemaChart = regexp.MustCompile(`^(\S+):$`)
	schemaError = regexp.MustCompile(`^- at '/?([^'/]*)([^']*)': (.*)$`)
)

// misfits names the file of each value that a chart's schema does not allow; nil
// where that is not what err says.
func (r *release) misfits(chart string, err error) error {
	if err == nil || !strings.Contains(err.Error(), "specifications of the schema") {
		return nil
	}
	var errs []error
	in := chart
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSpace(line)
		if m := schemaChart.FindStringSubmatch(line); m != nil {
			in = m[1]
		}
		m := schemaError.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		key, at := m[1], "/"+m[1]+m[2]
		if in != chart { // the values of a chart within are under its name
			key, at = in, "/"+in+at
		}
		file := cmp.Or(r.origin[key], "values.yaml")
		errs = append(errs, fault.New(fault.Invalid, path.Join(r.app.Dir, file), "change it there", "the chart's schema does not allow %s: %s", at, m[3]))
	}
	return errors.Join(errs...)
}

// hooksText is what hooks consist of, in one order; those of helm test, which
// nobody runs here, are none.
func hooksText(hooks []*rel.Hook) string {
	var out []string
	for _, h := range hooks {
		if !slices.Contains(h.Events, rel.HookTest) {
			out = append(out, strings.TrimSpace(h.Manifest)+"\n")
		}
	}
	slices.Sort(out)
	return strings.Join(out, "---\n")
}

// objects reads a YAML stream; what is in a List counts for itself.
func objects(text string) ([]*unstructured.Unstructured, error) {
	docs := relutil.SplitManifests(text)
	names := slices.Collect(maps.Keys(docs))
	sort.Sort(relutil.BySplitManifestsOrder(names))
	var out []*unstructured.Unstructured
	for _, name := range names {
		o := &unstructured.Unstructured{}
		// The line end that splitting takes away may be part of a text at the end;
		// Helm puts it back too.
		if err := yaml.Unmarshal([]byte(docs[name]+"\n"), &o.Object); err != nil {
			return nil, err
		}
		switch {
		case len(o.Object) == 0:
		case o.IsList():
			err := o.EachListItem(func(item runtime.Object) error {
				if u, ok := item.(*unstructured.Unstructured); ok {
					out = append(out, u)
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
		case o.GetKind() == "" || o.GetAPIVersion() == "" || o.GetName() == "":
			return nil, fmt.Errorf("an object without apiVersion, kind or metadata.name")
		default:
			out = append(out, o)
		}
	}
	return out, nil
}

// own marks an object as Helm does: without the marks it refuses what is there.
func own(o *unstructured.Unstructured, name, namespace string) {
	labels, annotations := o.GetLabels(), o.GetAnnotations()
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	labels["app.kubernetes.io/managed-by"] = "Helm"
	annotations["meta.helm.sh/release-name"], annotations["meta.helm.sh/release-namespace"] = name, namespace
	o.SetLabels(labels)
	o.SetAnnotations(annotations)
}

// manifest is the objects a recorded release consists of.
func manifest(r *rel.Release) []*unstructured.Unstructured {
	if r == nil {
		return nil
	}
	out, err := objects(r.Manifest)
	if err != nil {
		return nil // what Helm has recorded is what it could read
	}
	return out
}

// capabilities are what charts are told of the cluster.
func capabilities(version common.KubeVersion, r *kube.Resources) *common.Capabilities {
	var versions []string
	for _, g := range r.Groups {
		for _, v := range g.Group.Versions {
			versions = append(versions, v.GroupVersion)
			for _, kind := range g.VersionedResources[v.Version] {
				versions = append(versions, path.Join(v.GroupVersion, kind.Kind))
			}
		}
	}
	return &common.Capabilities{
		KubeVersion: version,
		APIVersions: versions, HelmVersion: common.DefaultCapabilities.HelmVersion,
	}
}
