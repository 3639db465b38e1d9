package apps

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/kube"
	lock "github.com/k3lab/k3lab/internal/release"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// writing is the permission to write, and what was told with it.
type writing struct {
	step.Writer
	mu   sync.Mutex
	made []string
	hear func(report.Event)
}

func (w *writing) Report(e report.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.Kind == report.ChangeMade {
		w.made = append(w.made, e.Object+": "+e.Message)
	}
	if w.hear != nil {
		w.hear(e)
	}
}

// bench is a workspace whose apps go to the API the tests share.
type bench struct {
	*testing.T
	root string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	if api.skip != "" {
		t.Skip(api.skip)
	}
	b := &bench{t, t.TempDir()}
	t.Cleanup(func() { // what one test leaves, the next one would have to remove
		if err := os.RemoveAll(filepath.Join(b.root, Dir)); err != nil {
			t.Error(err)
		}
		ctx := context.Background()
		p, err := b.engine().Plan(ctx)
		if err == nil {
			err = b.engine().Apply(ctx, &writing{}, p.Changes)
		}
		if err != nil {
			t.Error(err)
		}
		b.forgetWidgets(ctx)
	})
	return b
}

// forgetWidgets removes the definition that a chart's crds/ leave behind.
func (b *bench) forgetWidgets(ctx context.Context) {
	b.Helper()
	in := api.client.Dynamic.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
		err := in.Delete(ctx, "widgets.example.org", metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// write puts files of the archive "-- name --" form below kubernetes/apps.
func (b *bench) write(files ...string) {
	b.Helper()
	for i := 0; i < len(files); i += 2 {
		file := filepath.Join(b.root, Dir, files[i])
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(files[i+1]), 0o600); err != nil {
			b.Fatal(err)
		}
	}
}

func (b *bench) remove(name string) {
	b.Helper()
	if err := os.RemoveAll(filepath.Join(b.root, Dir, name)); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) engine() *Engine { b.Helper(); return b.engineOf(api.client) }

// charts are got anew by each engine, as each command does.
func (b *bench) charts() *Charts {
	b.Helper()
	locked, err := lock.ReadDigests(filepath.Join(b.root, lock.LockFile))
	if err != nil {
		b.Fatal(err)
	}
	return &Charts{
		Cache: filepath.Join(b.root, "cache"), Vendor: filepath.Join(b.root, VendorDir), Locked: locked,
		Get: &lock.Downloader{Retry: time.Millisecond},
	}
}

// lockFound locks what is not locked yet.
func (b *bench) lockFound() {
	b.Helper()
	list, err := Read(b.root)
	if err != nil {
		b.Fatal(err)
	}
	c := b.charts()
	New(b.Context(), api.client, b.root, list, c)
	if err := c.Locked.With(c.Found()).Write(filepath.Join(b.root, lock.LockFile)); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) engineOf(client *kube.Client) *Engine {
	b.Helper()
	list, err := Read(b.root)
	if err != nil {
		b.Fatal(err)
	}
	return New(context.Background(), client, b.root, list, b.charts())
}

func (b *bench) plan() *Plan {
	b.Helper()
	p, err := b.engine().Plan(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// shown is a plan in lines.
func shown(p *Plan) []string {
	var out []string
	for _, c := range p.Changes {
		line := c.Object + ": " + string(c.Action) + " " + c.Resource
		if c.Deferred != "" {
			line = c.Object + ": deferred: " + c.Deferred
		}
		if c.Detail != "" {
			line += ": " + c.Detail
		}
		for _, d := range c.Destroys {
			line += " LOSES " + d
		}
		out = append(out, line)
	}
	return out
}

func (b *bench) want(p *Plan, want ...string) {
	b.Helper()
	if d := cmp.Diff(want, shown(p)); d != "" {
		b.Errorf("plan (-want +got):\n%s", d)
	}
	if err := p.Err(); err != nil {
		b.Errorf("refused: %v", err)
	}
}

// apply makes what a plan shows and returns what was told.
func (b *bench) apply() []string {
	b.Helper()
	w := &writing{}
	e := b.engine()
	p, err := e.Plan(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if err := e.Apply(b.Context(), w, p.Changes); err != nil {
		b.Fatal(err)
	}
	return w.made
}

const configMap = `apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
`

const secret = `apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {password: hunter2}
`

const server = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: web, image: "registry.example/web:1"}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80}]
`

const widgets = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  names: {kind: Widget, plural: widgets}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer, maximum: 10}}}}}}
`

const widget = `apiVersion: example.org/v1
kind: Widget
metadata: {name: first}
spec: {size: 3}
`

// TestPlainManifests goes the whole way of an app of the user's own.
func TestPlainManifests(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	b.write("shop/a.yaml", widget, "shop/b.yaml", configMap+"---\n"+secret, "shop/c.yaml", server, "shop/d.yaml", widgets,
		"shop/app.yaml", "pod_security: baseline\nprovides: monitoring\n")
	first := b.plan()
	b.want(first,
		"shop: create release shop/shop",
		"shop: create Namespace shop",
		"shop: create Secret shop/login", "shop: create ConfigMap shop/settings",
		"shop: create CustomResourceDefinition widgets.example.org",
		"shop: create Service shop/web", "shop: create Deployment shop/web",
		"shop: deferred: Widget first: its kind is made by shop first")
	b.apply()
	b.want(b.plan())
	pods, err := api.client.Core.CoreV1().Pods("shop").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ready := 0
	for _, p := range pods.Items {
		if slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}) {
			ready++
		}
	}
	if ready != 2 {
		t.Errorf("apply ended with %d pods ready, want both", ready)
	}
	ns, err := api.client.Core.CoreV1().Namespaces().Get(ctx, "shop", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if ns.Labels["pod-security.kubernetes.io/enforce"] != "baseline" || ns.Labels["k3lab.io/provides"] != "monitoring" {
		t.Errorf("labels of the namespace: %v", ns.Labels)
	}
	before := b.versions("shop")
	if made := b.apply(); len(made) != 0 {
		t.Errorf("nothing to change, and it made %v", made)
	}
	if d := cmp.Diff(before, b.versions("shop")); d != "" {
		t.Errorf("nothing to change, and something was written (-before +after):\n%s", d)
	}
}

// TestNoRevisionForTheNamespace: what k3lab itself says of the namespace is none of
// Helm's business.
func TestNoRevisionForTheNamespace(t *testing.T) {
	b := newBench(t)
	b.write("room/objects.yaml", configMap)
	b.apply()
	b.write("room/app.yaml", "pod_security: baseline\n")
	b.want(b.plan(), "room: update Namespace room")
	b.apply()
	b.want(b.plan())
	states, err := b.engine().States(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]State{{App: "room", Release: "room", Namespace: "room", Revision: 1, Status: "deployed"}}, states); d != "" {
		t.Errorf("states (-want +got):\n%s", d)
	}
}

// versions are the resource versions of what an apply would write.
func (b *bench) versions(namespace string) map[string]string {
	b.Helper()
	out := map[string]string{}
	secrets, err := api.client.Core.CoreV1().Secrets(namespace).List(b.Context(), metav1.ListOptions{})
	if err != nil {
		b.Fatal(err)
	}
	for _, o := range secrets.Items {
		out["secret "+o.Name] = o.ResourceVersion
	}
	maps, err := api.client.Core.CoreV1().ConfigMaps(namespace).List(b.Context(), metav1.ListOptions{})
	if err != nil {
		b.Fatal(err)
	}
	for _, o := range maps.Items {
		out["configmap "+o.Name] = o.ResourceVersion
	}
	return out
}

// TestDriftIsShownAndMended: what was changed by hand, in a Secret too.
func TestDriftIsShownAndMended(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	b.write("drift/objects.yaml", configMap+"---\n"+secret+
		"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: text}\ndata:\n  text: |\n    its line end counts\n")
	b.apply()
	byHand := metav1.PatchOptions{FieldManager: "kubectl-edit"}
	if _, err := api.client.Core.CoreV1().ConfigMaps("drift").Patch(ctx, "settings", types.MergePatchType, []byte(`{"data":{"colour":"red"}}`), byHand); err != nil {
		t.Fatal(err)
	}
	if _, err := api.client.Core.CoreV1().Secrets("drift").Patch(ctx, "login", types.MergePatchType, []byte(`{"stringData":{"password":"hunter3"}}`), byHand); err != nil {
		t.Fatal(err)
	}
	p := b.plan()
	b.want(p, "drift: update Secret drift/login", "drift: update ConfigMap drift/settings")
	for _, c := range p.Changes {
		switch c.Resource {
		case "ConfigMap drift/settings":
			if !strings.Contains(c.Before, "colour: red") || !strings.Contains(c.After, "colour: blue") {
				t.Errorf("%s:\n%s\n%s", c.Resource, c.Before, c.After)
			}
		default:
			if strings.Contains(c.Before+c.After, "aHVudGVy") || strings.Contains(c.Before+c.After, "hunter") || !strings.Contains(c.After, "password: '*** (another)'") {
				t.Errorf("%s:\n%s\n%s", c.Resource, c.Before, c.After)
			}
		}
	}
	made := b.apply()
	if d := cmp.Diff([]string{"drift: update Secret drift/login", "drift: update ConfigMap drift/settings"}, made); d != "" {
		t.Errorf("made (-want +got):\n%s", d)
	}
	m, err := api.client.Core.CoreV1().ConfigMaps("drift").Get(ctx, "settings", metav1.GetOptions{})
	if err != nil || m.Data["colour"] != "blue" {
		t.Errorf("%v, %v", m.Data, err)
	}
	b.want(b.plan())
}

// TestRemovalNamesTheVolumes: what would be lost is shown, and nothing that was not
// shown is lost.
func TestRemovalNamesTheVolumes(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	const claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Gi}}}\n"
	const other = "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n"
	b.write("media/app.yaml", "timeout: 2s\n", "media/objects.yaml", configMap, "media/other.yaml", other)
	b.apply()
	b.remove("media")
	shownBefore := b.plan()
	b.want(shownBefore, "media: delete release media/media: it is not in the workspace")
	pvc := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "late"}}
	pvc.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	pvc.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: quantity("1Gi")}
	if _, err := api.client.Core.CoreV1().PersistentVolumeClaims("other").Create(ctx, pvc, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	err := b.engine().Apply(ctx, &writing{}, shownBefore.Changes)
	want := "media: the cluster is not as it was when the plan was shown: PersistentVolumeClaim other/late would be lost (try: k3lab plan, then again)"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	b.want(b.plan(), "media: delete release media/media: it is not in the workspace LOSES PersistentVolumeClaim other/late")

	b.write("media/app.yaml", "timeout: 1s\n", "media/objects.yaml", configMap, "media/other.yaml", other, "media/claim.yaml", claim)
	// A claim without a class that binds never becomes healthy: the revision fails,
	// and the claim, which is of no good revision, goes again with the roll-back.
	err = b.engine().Apply(ctx, &writing{}, b.plan().Changes)
	if fault.KindOf(err) != fault.Unhealthy || !strings.Contains(err.Error(), "rolled back to revision 1, which is healthy") {
		t.Errorf("%v", err)
	}
}

// TestOneBadAppDoesNotStopTheOthers, in plan and apply; each says what is wrong
// with it and where.
func TestOneBadAppDoesNotStopTheOthers(t *testing.T) {
	b := newBench(t)
	b.write("good/objects.yaml", configMap,
		"typo/app.yaml", "chrat: x\n", "typo/objects.yaml", configMap,
		"empty/app.yaml", "",
		"kindless/objects.yaml", "apiVersion: example.com/v1\nkind: Gadget\nmetadata: {name: g}\n",
		"invalid/app.yaml", "namespace: default\n", "invalid/objects.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 700000}]}\n",
		"lonely/app.yaml", "needs: [nobody]\n", "lonely/objects.yaml", configMap,
		"late/app.yaml", "needs: [kindless]\n", "late/objects.yaml", configMap,
		"time/app.yaml", "timeout: soon\n", "time/objects.yaml", configMap,
		"nochart/app.yaml", "chart: there\n",
		"one/app.yaml", "needs: [two]\n", "two/app.yaml", "needs: [one]\n")
	p := b.plan()
	var got []string
	for name, err := range p.Refused {
		if fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v is not invalid", name, err)
		}
		got = append(got, name+": "+err.Error())
	}
	slices.Sort(got)
	want := []string{
		"empty: kubernetes/apps/empty: there is no app in this folder (try: put a chart, a kustomization.yaml or YAML files of objects into it)",
		`invalid: kubernetes/apps/invalid: Service default/s: refused by the API: Service "s" is invalid: [spec.ports[0].port: Invalid value: 700000: must be between 1 and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 700000: must be between 1 and 65535, inclusive] (try: change it in kubernetes/apps/invalid)`,
		"kindless: kubernetes/apps/kindless: Gadget g: this cluster has no example.com/v1 Gadget, and no app brings it (try: add the app that brings it, and name it in needs of app.yaml)",
		`lonely: kubernetes/apps/lonely/app.yaml: needs: there is no app "nobody" (try: take it out of needs, or add that app)`,
		"nochart: kubernetes/apps/nochart/app.yaml: chart: there is no kubernetes/apps/nochart/there (try: put it there, or change chart)",
		"one: kubernetes/apps/one/app.yaml: needs: one → two → one need each other (try: take one of them out of needs)",
		`time: kubernetes/apps/time/app.yaml: timeout: "soon" is not a duration (try: write it as 5m or 90s)`,
		"two: kubernetes/apps/two/app.yaml: needs: two → one → two need each other (try: take one of them out of needs)",
		`typo: kubernetes/apps/typo/app.yaml: [1:1] unknown field "chrat" (try: docs/applications.md lists the keys)`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("refused (-want +got):\n%s", d)
	}
	made := b.apply()
	wantMade := []string{"good: create ConfigMap good/settings", "good: create Namespace good", "good: create release good/good"}
	slices.Sort(made)
	if d := cmp.Diff(wantMade, made); d != "" {
		t.Errorf("made (-want +got):\n%s", d)
	}
}

// TestQuotaAndAdmission: the API's own refusals name file and cause, before anything
// is written.
func TestQuotaAndAdmission(t *testing.T) {
	b := newBench(t)
	const quota = "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: small}\nspec: {hard: {count/configmaps: \"2\"}}\n"
	b.write("frame/app.yaml", "namespace: narrow\n", "frame/quota.yaml", quota)
	b.apply()
	b.write("big/app.yaml", "namespace: narrow\nneeds: [frame]\n", "big/a.yaml", configMap,
		"big/b.yaml", strings.Replace(configMap, "settings", "more", 1), "big/c.yaml", strings.Replace(configMap, "settings", "most", 1))
	err := b.engine().Apply(t.Context(), &writing{}, b.plan().Changes)
	if err == nil || !strings.Contains(err.Error(), "exceeded quota: small") {
		t.Fatalf("%v", err)
	}
	if !strings.HasPrefix(err.Error(), "app big: kubernetes/apps/big: ") || !strings.Contains(err.Error(), "(try: ask for less in kubernetes/apps/big, or raise the ResourceQuota of namespace narrow)") {
		t.Errorf("it does not say where: %v", err)
	}
	if _, err := api.client.Core.CoreV1().ConfigMaps("narrow").Get(t.Context(), "settings", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("what was begun stayed: %v", err)
	}
}

// TestUnhealthyIsPutBack: a first revision goes again, a later one goes back, and
// events say why.
func TestUnhealthyIsPutBack(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	nowhere := strings.Replace(server, "    spec:\n", "    spec:\n      nodeSelector: {moon: \"yes\"}\n", 1)
	b.write("ill/app.yaml", "timeout: 3s\n", "ill/web.yaml", nowhere)
	err := b.engine().Apply(ctx, &writing{}, b.plan().Changes)
	if fault.KindOf(err) != fault.Unhealthy {
		t.Fatalf("%v", err)
	}
	for _, part := range []string{"app ill: kubernetes/apps/ill: ill: it is not healthy after 3s", "Deployment ill/web: ", "FailedScheduling", "removed again: no revision of it has been healthy"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q:\n%v", part, err)
		}
	}
	if _, err := api.client.Core.AppsV1().Deployments("ill").Get(ctx, "web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Deployment: %v, want it gone", err)
	}
	b.write("ill/web.yaml", server, "ill/config.yaml", configMap)
	b.apply()
	b.write("ill/web.yaml", nowhere, "ill/config.yaml", strings.Replace(configMap, "blue", "green", 1))
	err = b.engine().Apply(ctx, &writing{}, b.plan().Changes)
	if err == nil || !strings.Contains(err.Error(), "rolled back to revision 1, which is healthy") {
		t.Fatalf("%v", err)
	}
	m, err := api.client.Core.CoreV1().ConfigMaps("ill").Get(ctx, "settings", metav1.GetOptions{})
	if err != nil || m.Data["colour"] != "blue" {
		t.Errorf("%v, %v: want it as it was", m.Data, err)
	}
}

// TestInterrupted: when told to stop nothing is written any more, and the next run
// goes on.
func TestInterrupted(t *testing.T) {
	b := newBench(t)
	nowhere := strings.Replace(server, "    spec:\n", "    spec:\n      nodeSelector: {moon: \"yes\"}\n", 1)
	b.write("stop/web.yaml", nowhere)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := &writing{hear: func(e report.Event) {
		if e.Kind == report.ObjectState && strings.Contains(e.Message, "stop/web") {
			cancel()
		}
	}}
	err := b.engine().Apply(ctx, w, b.plan().Changes)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	before := b.versions("stop")
	b.write("stop/web.yaml", server)
	b.apply()
	b.want(b.plan())
	if len(before) == 0 {
		t.Error("nothing had been begun")
	}
}
