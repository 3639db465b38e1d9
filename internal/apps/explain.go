package apps

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/k3lab/k3lab/internal/kube"
)

const (
	explainPatience = 10 * time.Second
	eventsShown     = 5
	logLinesShown   = int64(8)
	podsShown       = 3
)

// explain tells of each object that is not healthy what the cluster says about
// it: warnings, and the last lines its containers wrote. What cannot be asked is
// left out: the failure itself is said anyway.
func (e *Engine) explain(ctx context.Context, ill []ailing) string {
	ctx, cancel := context.WithTimeout(ctx, explainPatience)
	defer cancel()
	var s strings.Builder
	for _, a := range ill {
		fmt.Fprintf(&s, "\n  %s: %s", kube.Name(a.object), a.why)
		for _, line := range e.warnings(ctx, a.object) {
			s.WriteString("\n    event: " + line)
		}
		for _, line := range e.logs(ctx, a.object) {
			s.WriteString("\n    " + line)
		}
	}
	return s.String()
}

// warnings are the last warning events of an object and of what it has made.
func (e *Engine) warnings(ctx context.Context, o *unstructured.Unstructured) []string {
	if o.GetNamespace() == "" {
		return nil
	}
	list, err := e.client.Core.CoreV1().Events(o.GetNamespace()).List(ctx, metav1.ListOptions{FieldSelector: "type=Warning"})
	if err != nil {
		return nil
	}
	at := func(v *corev1.Event) time.Time {
		if v.LastTimestamp.IsZero() {
			return v.EventTime.Time
		}
		return v.LastTimestamp.Time
	}
	slices.SortFunc(list.Items, func(a, b corev1.Event) int { return at(&b).Compare(at(&a)) })
	var out []string
	for i := range list.Items {
		v := &list.Items[i]
		name := v.InvolvedObject.Name
		line := v.InvolvedObject.Kind + " " + name + ": " + v.Reason + ": " + strings.TrimSpace(v.Message)
		if (name == o.GetName() || strings.HasPrefix(name, o.GetName()+"-")) && !slices.Contains(out, line) && len(out) < eventsShown {
			out = append(out, line)
		}
	}
	return out
}

// logs are the last lines of the containers of a workload that are not ready.
func (e *Engine) logs(ctx context.Context, o *unstructured.Unstructured) []string {
	want, found, _ := unstructured.NestedStringMap(o.Object, "spec", "selector", "matchLabels")
	if !found {
		return nil
	}
	pods, err := e.client.Core.CoreV1().Pods(o.GetNamespace()).List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(want).String()})
	if err != nil {
		return nil
	}
	slices.SortFunc(pods.Items, func(a, b corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	var out []string
	for i := range pods.Items[:min(len(pods.Items), podsShown)] {
		p := &pods.Items[i]
		for _, c := range p.Status.ContainerStatuses {
			if c.Ready {
				continue
			}
			lines := logLinesShown
			text, err := e.client.Core.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: c.Name, TailLines: &lines, Previous: c.RestartCount > 0}).DoRaw(ctx)
			if err != nil || len(text) == 0 {
				continue
			}
			out = append(out, "log of Pod "+p.Name+", container "+c.Name+":")
			for line := range strings.Lines(string(text)) {
				out = append(out, "  "+strings.TrimRight(line, "\n"))
			}
		}
	}
	return out
}
