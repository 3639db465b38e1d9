package apps

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/k3lab/k3lab/internal/fault"
	lock "github.com/k3lab/k3lab/internal/release"
)

// packed is a chart's archive.
func packed(t *testing.T, name string, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	w := tar.NewWriter(zip)
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: name + "/" + file, Mode: 0o644, Size: int64(len(files[file]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[file])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// paint is the chart of the tests: a colour, which a schema holds to text.
func paint(version string) map[string]string {
	return map[string]string{
		"Chart.yaml":          "apiVersion: v2\nname: paint\nversion: " + version + "\n",
		"values.yaml":         "colour: blue\nhook: false\n",
		"values.schema.json":  `{"type":"object","properties":{"colour":{"type":"string"},"hook":{"type":"boolean"}}}`,
		"crds/widgets.yaml":   strings.Replace(widgets, "maximum: 10", "maximum: 1"+strings.ReplaceAll(version, ".", ""), 1),
		"templates/it.yaml":   "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: paint}\ndata: {colour: {{ .Values.colour }}, version: {{ .Chart.Version | quote }}}\n",
		"templates/hook.yaml": "{{ if .Values.hook }}\napiVersion: batch/v1\nkind: Job\nmetadata: {name: before, annotations: {helm.sh/hook: \"pre-install,pre-upgrade\"}}\nspec: {template: {spec: {restartPolicy: Never, nodeSelector: {moon: \"yes\"}, containers: [{name: c, image: none}]}}}\n{{ end }}",
	}
}

// store serves charts as a repository and as a registry does.
type store struct {
	*httptest.Server
	charts map[string][]byte // by version
	down   atomic.Bool
	asked  atomic.Int64
}

func newStore(t *testing.T, versions ...string) *store {
	s := &store{charts: map[string][]byte{}}
	for _, v := range versions {
		s.charts[v] = packed(t, "paint", paint(v))
	}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (s *store) manifest(version string) []byte {
	b, _ := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": map[string]any{"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": "sha256:" + hexSum([]byte("{}")), "size": 2},
		"layers": []any{map[string]any{"mediaType": "application/vnd.cncf.helm.chart.content.v1.tar+gzip", "digest": "sha256:" + hexSum(s.charts[version]), "size": len(s.charts[version])}},
	})
	return b
}

func (s *store) serve(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	if s.down.Load() {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	if r.URL.Path == "/charts/index.yaml" {
		fmt.Fprintln(w, "apiVersion: v1\nentries:\n  paint:")
		for _, v := range slices.Sorted(maps.Keys(s.charts)) {
			fmt.Fprintf(w, "  - {name: paint, version: %s, urls: [paint-%s.tgz], digest: %s}\n", v, v, hexSum(s.charts[v]))
		}
		return
	}
	for v, text := range s.charts {
		manifest := s.manifest(v)
		switch r.URL.Path {
		case "/charts/paint-" + v + ".tgz", "/v2/charts/paint/blobs/sha256:" + hexSum(text):
			_, _ = w.Write(text)
			return
		case "/v2/charts/paint/manifests/" + v, "/v2/charts/paint/manifests/sha256:" + hexSum(manifest):
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Docker-Content-Digest", "sha256:"+hexSum(manifest))
			w.Header().Set("Content-Length", fmt.Sprint(len(manifest)))
			if r.Method != http.MethodHead {
				_, _ = w.Write(manifest)
			}
			return
		}
	}
	http.NotFound(w, r)
}

func (s *store) http() string { return s.URL + "/charts" }
func (s *store) oci() string  { return "oci://" + strings.TrimPrefix(s.URL, "http://") + "/charts" }

func appOf(repository, version, more string) string {
	return "chart: paint\nrepository: " + repository + "\nversion: " + version + "\n" + more
}

// TestCharts goes the way of a chart from each kind of source: its digest is
// locked, crds/ are brought up to date, and a repository is not needed twice.
func TestCharts(t *testing.T) {
	for _, source := range []string{"http", "oci"} {
		t.Run(source, func(t *testing.T) {
			b := newBench(t)
			ns, s := "paint-"+source, newStore(t, "1.0.0", "1.1.0")
			own := "namespace: " + ns + "\n"
			from := s.http()
			if source == "oci" {
				from = s.oci()
			}
			b.write("paint/app.yaml", appOf(from, "1.0.0", own), "paint/values.yaml", "colour: red\n", "paint/values.user.yaml", "colour: green\n")
			b.want(b.plan(),
				"paint: update file k3lab.lock: digest of chart paint 1.0.0 as it is now; from here on no other is taken",
				"paint: create release "+ns+"/paint: version 1.0.0", "paint: create Namespace "+ns,
				"paint: create CustomResourceDefinition widgets.example.org", "paint: create ConfigMap "+ns+"/paint")
			b.apply()
			b.lockFound()
			b.want(b.plan())
			s.down.Store(true)
			asked := s.asked.Load()
			b.want(b.plan())
			if s.asked.Load() != asked {
				t.Error("a chart that is locked and in the cache was asked for again")
			}
			s.down.Store(false)
			m, err := api.client.Core.CoreV1().ConfigMaps(ns).Get(t.Context(), "paint", metav1.GetOptions{})
			if err != nil || m.Data["colour"] != "green" {
				t.Errorf("%v, %v: want the user's own value", m.Data, err)
			}
			b.write("paint/app.yaml", appOf(from, "1.1.0", own))
			b.want(b.plan(),
				"paint: update file k3lab.lock: digest of chart paint 1.1.0 as it is now; from here on no other is taken",
				"paint: update release "+ns+"/paint: version 1.0.0 → 1.1.0",
				"paint: update CustomResourceDefinition widgets.example.org", "paint: update ConfigMap "+ns+"/paint")
			b.apply()
			b.want(b.plan(), "paint: update file k3lab.lock: digest of chart paint 1.1.0 as it is now; from here on no other is taken")
			b.lockFound()
			to, err := b.engine().Rollback(t.Context(), &writing{}, "paint", 0)
			if err != nil || to != 1 {
				t.Errorf("rollback to %d, %v; want 1", to, err)
			}
			m, err = api.client.Core.CoreV1().ConfigMaps(ns).Get(t.Context(), "paint", metav1.GetOptions{})
			if err != nil || m.Data["version"] != "1.0.0" {
				t.Errorf("%v, %v: want it as it was", m.Data, err)
			}
			if _, err := b.engine().Rollback(t.Context(), &writing{}, "paint", 9); err == nil || err.Error() != "paint: there is no revision 9; it has: 3, 2, 1 (try: helm -n "+ns+" history paint)" {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestBadCharts: each says what is wrong, and in which file.
func TestBadCharts(t *testing.T) {
	b := newBench(t)
	s := newStore(t, "1.0.0", "1.1.0")
	for _, test := range []struct {
		name, app, values string
		before            func()
		kind              fault.Kind
		want              string
	}{
		{"a version there is not", appOf(s.http(), "9.9.9", ""), "", nil, fault.Invalid,
			"kubernetes/apps/bad/app.yaml: version: " + s.http() + " has no paint 9.9.9 (try: version: 1.1.0, which is the newest)"},
		{"a version there is not in a registry", appOf(s.oci(), "9.9.9", ""), "", nil, fault.Invalid,
			"kubernetes/apps/bad/app.yaml: version: " + s.oci() + " has no paint 9.9.9 (try: look at version)"},
		{"a range", appOf(s.http(), "^1.0.0", ""), "", nil, fault.Invalid,
			`kubernetes/apps/bad/app.yaml: version: "^1.0.0" is not one version (try: one exact version, such as 1.2.3)`},
		{"not encrypted", appOf("http://charts.example.org", "1.0.0", ""), "", nil, fault.Invalid,
			`kubernetes/apps/bad/app.yaml: repository: "http://charts.example.org" is no address of charts (try: https://charts.example.org or oci://registry.example.org/charts)`},
		{"a chart there is not", strings.Replace(appOf(s.http(), "1.0.0", ""), "paint", "pain", 1), "", nil, fault.Invalid,
			"kubernetes/apps/bad/app.yaml: chart: " + s.http() + ` has no chart "pain" (try: look at chart and repository)`},
		{"values that do not fit", appOf(s.http(), "1.0.0", ""), "colour: 3\n", nil, fault.Invalid,
			"kubernetes/apps/bad/values.yaml: the chart's schema does not allow /colour: got number, want string (try: change it there)"},
		{"the repository is down", appOf(s.http(), "1.0.0", ""), "", func() { s.down.Store(true) }, fault.Unreachable,
			"kubernetes/apps/bad/app.yaml: repository: " + s.http() + "/index.yaml: the answer is 503 Service Unavailable (try: look at repository; k3lab apps vendor keeps charts for when it cannot be reached)"},
		{"another chart than the locked one", appOf(s.http(), "1.0.0", ""), "", func() {
			digests := lock.Digests{"chart/" + s.http() + "/paint/1.0.0": strings.Repeat("0", 64)}
			if err := digests.Write(filepath.Join(b.root, lock.LockFile)); err != nil {
				t.Fatal(err)
			}
		}, fault.Invalid,
			"kubernetes/apps/bad/app.yaml: chart: paint-1.0.0.tgz of " + s.http() + " has the SHA-256 " + hexSum(s.charts["1.0.0"]) + ", but " + strings.Repeat("0", 64) + " is locked (try: find out who has changed the chart; then delete its line in k3lab.lock)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.down.Store(false)
			b.write("bad/app.yaml", test.app, "bad/values.yaml", test.values)
			if test.before != nil {
				test.before()
			}
			err := b.plan().Refused["bad"]
			if err == nil || err.Error() != test.want || fault.KindOf(err) != test.kind {
				t.Errorf("%v (%v)\nwant %s", err, fault.KindOf(err), test.want)
			}
		})
	}
}

// TestVendoredCharts need no repository, and no other file passes for them.
func TestVendoredCharts(t *testing.T) {
	b := newBench(t)
	s := newStore(t, "1.0.0")
	b.write("paint/app.yaml", appOf(s.oci(), "1.0.0", "namespace: vendored\n"))
	list, err := Read(b.root)
	if err != nil {
		t.Fatal(err)
	}
	files, err := b.charts().Keep(t.Context(), list)
	if err != nil || !slices.Equal(files, []string{"kubernetes/charts/paint-1.0.0.tgz"}) {
		t.Fatalf("%v, %v", files, err)
	}
	b.lockFound()
	s.down.Store(true)
	if err := os.RemoveAll(filepath.Join(b.root, "cache")); err != nil {
		t.Fatal(err)
	}
	if p := b.plan(); p.Err() != nil || len(p.Changes) != 4 {
		t.Errorf("%v, %v", shown(p), p.Err())
	}
	if err := os.WriteFile(filepath.Join(b.root, files[0]), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.plan().Err(); fault.KindOf(err) != fault.Invalid || !strings.Contains(fmt.Sprint(err), "chart: paint-1.0.0.tgz of kubernetes/charts/paint-1.0.0.tgz has the SHA-256 ") {
		t.Errorf("%v", err)
	}
}

// counted counts the requests that reach the API.
type counted struct {
	next http.RoundTripper
	n    *atomic.Int64
}

func (c counted) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.next.RoundTrip(r)
}

// TestNothingRunsOn: told to stop in the middle of Helm's own work, nothing reaches
// the API any more; the next run goes on from there.
func TestNothingRunsOn(t *testing.T) {
	b := newBench(t)
	s := newStore(t, "1.0.0")
	b.write("paint/app.yaml", appOf(s.http(), "1.0.0", ""), "paint/values.yaml", "hook: true\n")
	var requests atomic.Int64
	watched := *api.client
	watched.Config = rest.CopyConfig(api.client.Config)
	watched.Config.Wrap(func(next http.RoundTripper) http.RoundTripper { return counted{next, &requests} })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for tick := time.NewTicker(50 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			if _, err := api.client.Core.BatchV1().Jobs("paint").Get(ctx, "before", metav1.GetOptions{}); err == nil {
				cancel()
			}
		}
	}()
	e := b.engineOf(&watched)
	p, err := e.Plan(ctx)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err = e.Apply(ctx, &writing{}, p.Changes)
	if err == nil || ctx.Err() == nil || time.Since(began) > 30*time.Second {
		t.Fatalf("%v after %s", err, time.Since(began))
	}
	after := requests.Load()
	if after == 0 {
		t.Fatal("nothing was counted")
	}
	time.Sleep(3 * time.Second) // nothing to wait for: that nothing comes is what is proven
	if now := requests.Load(); now != after {
		t.Errorf("%d requests after it had ended", now-after)
	}
	if _, err := api.client.Core.CoreV1().ConfigMaps("paint").Get(t.Context(), "paint", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("what comes after the hook: %v", err)
	}
	b.write("paint/values.yaml", "hook: false\n")
	if line := shown(b.plan())[1]; line != "paint: update release paint/paint: go on: revision 1 did not end (pending-install)" {
		t.Errorf("plan after it: %s", line)
	}
	b.apply()
	b.lockFound()
	b.want(b.plan())
	gone := metav1.DeletePropagationBackground
	if err := api.client.Core.BatchV1().Jobs("paint").Delete(t.Context(), "before", metav1.DeleteOptions{PropagationPolicy: &gone}); err != nil {
		t.Error(err)
	}
}
