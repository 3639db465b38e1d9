package cluster

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/k3lab/k3lab/internal/kube"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// writing is the permission to change something, for tests.
type writing struct {
	step.Writer
	said *[]string
}

func (w writing) Report(e report.Event) { *w.said = append(*w.said, e.Object+": "+e.Message) }

// evicting is a cluster with these objects whose API takes evictions: it refuses
// those of pods that a budget keeps, and ends the other pods unless they linger.
func evicting(linger string, objects ...runtime.Object) *Client {
	set := fake.NewClientset(objects...)
	set.Resources = []*metav1.APIResourceList{{GroupVersion: "v1", APIResources: []metav1.APIResource{
		{Name: "pods/eviction", Kind: "Eviction", Group: "policy", Version: "v1"},
	}}}
	set.PrependReactor("create", "pods", func(action k8stesting.Action) (bool, runtime.Object, error) {
		if action.GetSubresource() != "eviction" {
			return false, nil, nil
		}
		eviction := action.(k8stesting.CreateAction).GetObject().(*policyv1.Eviction) //nolint:forcetypeassert // what is created there
		pods := corev1.SchemeGroupVersion.WithResource("pods")
		found, err := set.Tracker().Get(pods, eviction.Namespace, eviction.Name)
		if err != nil {
			return true, nil, err
		}
		pod := found.(*corev1.Pod).DeepCopy() //nolint:forcetypeassert // what is there
		switch {
		case pod.Labels["app"] == "kept":
			return true, nil, apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
		case pod.Name == linger:
			now := metav1.Now()
			pod.DeletionTimestamp = &now
			return true, nil, set.Tracker().Update(pods, pod, pod.Namespace)
		}
		return true, nil, set.Tracker().Delete(pods, pod.Namespace, pod.Name)
	})
	return &Client{&kube.Client{Core: set}}
}

func pod(name, app string, change ...func(*corev1.Pod)) *corev1.Pod {
	controller := true
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "media", Labels: map[string]string{"app": app},
			OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: app, Controller: &controller}}},
		Spec: corev1.PodSpec{NodeName: "agent-1"}, Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func alone(p *corev1.Pod) { p.OwnerReferences = nil }

func withEmptyDir(p *corev1.Pod) {
	p.Spec.Volumes = []corev1.Volume{{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
}

func said(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func inOrder(lines []string) []string {
	slices.Sort(lines)
	return lines
}

func TestDrain(t *testing.T) {
	budget := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "media"},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "kept"}}},
		Status:     policyv1.PodDisruptionBudgetStatus{DesiredHealthy: 2, CurrentHealthy: 2},
	}
	daemons := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: "media"}}
	ofDaemonSet := func(p *corev1.Pod) {
		p.OwnerReferences[0].APIVersion, p.OwnerReferences[0].Kind = "apps/v1", "DaemonSet"
	}
	static := func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} }
	ended := func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }
	tests := map[string]struct {
		objects []runtime.Object
		options DrainOptions
		linger  string
		want    string
		said    []string
		left    []string
	}{
		"an empty node": {},
		"pods go, but those that belong to the node": {
			objects: []runtime.Object{pod("a", "x"), pod("b", "x", withEmptyDir), pod("c", "x", ofDaemonSet), pod("d", "x", static), pod("e", "x", alone, ended), daemons},
			said:    []string{"agent-1: evict pod media/a", "agent-1: evict pod media/b", "agent-1: evict pod media/e"}, left: []string{"c", "d"}},
		"a budget keeps one": {
			objects: []runtime.Object{pod("a", "x"), pod("b", "kept"), budget},
			want: "agent-1: not drained within 50ms: media/b is kept by the disruption budget media/web, which wants 2 of its pods healthy, and 2 are" +
				" (try: more replicas, or a budget that lets one go: kubectl -n media get pdb web)",
			said: []string{"agent-1: evict pod media/a"}, left: []string{"b"}},
		"one does not end": {
			objects: []runtime.Object{pod("a", "x")}, linger: "a",
			want: "agent-1: not drained within 50ms: media/a was told to end and has not (try: kubectl -n media describe pod a)", left: []string{"a"}},
		"nobody would make one again": {
			objects: []runtime.Object{pod("a", "x"), pod("b", "x", alone)},
			want:    "agent-1: not drained: no controller would make these pods again: media/b (try: delete them, or --delete-unmanaged)", left: []string{"a", "b"}},
		"nobody would make one again, and that is so wanted": {
			objects: []runtime.Object{pod("b", "x", alone)}, options: DrainOptions{DeleteUnmanaged: true}, said: []string{"agent-1: evict pod media/b"}},
		"the content of an emptyDir is to stay": {
			objects: []runtime.Object{pod("a", "x"), pod("b", "x", withEmptyDir)}, options: DrainOptions{KeepEmptyDir: true},
			want: "agent-1: not drained: the content of an emptyDir would go with these pods: media/b (try: delete them, or do without --keep-emptydir)", left: []string{"a", "b"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := evicting(test.linger, test.objects...)
			test.options.Timeout = 50 * time.Millisecond
			var all []string
			err := c.Drain(t.Context(), writing{said: &all}, "agent-1", test.options)
			if got := said(err); got != test.want {
				t.Errorf("error:\n%s\nwant:\n%s", got, test.want)
			}
			pods, err := c.Core.CoreV1().Pods("media").List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var left []string
			for _, p := range pods.Items {
				left = append(left, p.Name)
			}
			if d := cmp.Diff(test.left, left); d != "" {
				t.Errorf("left (-want +got):\n%s", d)
			}
			if d := cmp.Diff(test.said, inOrder(all)); d != "" {
				t.Errorf("said (-want +got):\n%s", d)
			}
		})
	}
}

// TestOnlyWhatWasCordonedHereIsUncordoned.
func TestOnlyWhatWasCordonedHereIsUncordoned(t *testing.T) {
	ready := corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}
	byHand := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "agent-1"}, Spec: corev1.NodeSpec{Unschedulable: true}, Status: ready}
	open := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "agent-2"}, Status: ready}
	c := &Client{&kube.Client{Core: fake.NewClientset(byHand, open)}}
	var all []string
	w := writing{said: &all}
	is := func(node string, cordoned bool, by string) {
		t.Helper()
		gotCordoned, gotBy, err := c.Cordoned(t.Context(), node)
		if err != nil || gotCordoned != cordoned || gotBy != by {
			t.Errorf("%s: cordoned %v by %q, %v; want %v by %q", node, gotCordoned, gotBy, err, cordoned, by)
		}
	}
	elsewhere := func(node string, want bool) {
		t.Helper()
		if got, err := c.Elsewhere(t.Context(), node); err != nil || got != want {
			t.Errorf("another node than %s takes pods: %v, %v", node, got, err)
		}
	}
	elsewhere("agent-1", true)
	elsewhere("agent-2", false)
	for _, node := range []string{"agent-1", "agent-2", "agent-2"} {
		if err := c.Cordon(t.Context(), w, node, "os-update"); err != nil {
			t.Fatal(err)
		}
	}
	is("agent-1", true, "")
	is("agent-2", true, "os-update")
	for _, node := range []string{"agent-1", "agent-2", "agent-2"} {
		if err := c.Uncordon(t.Context(), w, node); err != nil {
			t.Fatal(err)
		}
	}
	is("agent-1", true, "")
	is("agent-2", false, "")
	if d := cmp.Diff([]string{"agent-2: cordon node", "agent-2: uncordon node"}, all); d != "" {
		t.Errorf("said (-want +got):\n%s", d)
	}
	if err := c.Cordon(t.Context(), w, "nowhere", "x"); said(err) != `nowhere: nodes "nowhere" not found` {
		t.Errorf("a node that is not there: %v", err)
	}
}
