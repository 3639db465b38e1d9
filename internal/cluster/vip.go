package cluster

import (
	"context"
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3lab/k3lab/internal/kube"
)

// vipPatience is how long the API may take to answer at the VIP.
const vipPatience = 3 * time.Second

// localAddresses is where the kernel lists a machine's own addresses.
const localAddresses = "/proc/net/fib_trie"

// VIP is what is seen of the address that the servers share.
type VIP struct {
	Address string   `json:"address"`
	Holders []string `json:"holders"`           // servers that have it: one, but for moments
	Problem string   `json:"problem,omitempty"` // why the API does not answer there; empty where it does
	Pods    []VIPPod `json:"pods,omitempty"`    // that keep it, where pods do
}

// VIPPod is one of the pods that keep the VIP.
type VIPPod struct {
	Node  string `json:"node"`
	State string `json:"state"` // ready, or why it is not
}

// podReady and podComing are states of a pod that works, and of one whose image
// may be on its way.
const (
	podReady  = "ready"
	podComing = "ContainerCreating"
)

// Coming reports whether a pod that keeps the VIP is just being made.
func (v *VIP) Coming() bool {
	return slices.ContainsFunc(v.Pods, func(p VIPPod) bool { return p.State == podComing })
}

// Failing are the pods that could not take the VIP now.
func (v *VIP) Failing() []VIPPod {
	return slices.DeleteFunc(slices.Clone(v.Pods), func(p VIPPod) bool { return p.State == podReady })
}

// String is the problem with what is known about it.
func (v *VIP) String() string {
	where := "which no server has"
	if len(v.Holders) > 0 {
		where = "which " + strings.Join(v.Holders, " and ") + " has"
	}
	text := "vip: the API does not answer at " + v.Address + ", " + where + ": " + v.Problem
	if v.Pods == nil {
		return text
	}
	var pods []string
	for _, p := range v.Pods {
		pods = append(pods, p.Node+" "+p.State)
	}
	if pods == nil {
		pods = []string{"none"}
	}
	return text + "; pods that keep it: " + strings.Join(pods, ", ")
}

// vip asks the API through the VIP, and where it does not answer why that may be.
// It returns nil where there is no VIP.
func (o *Observer) vip(ctx context.Context) *VIP {
	if !o.VIP.IsValid() {
		return nil
	}
	v := &VIP{Address: o.VIP.String()}
	if len(o.Kubeconfig) == 0 {
		v.Problem = "no kubeconfig yet"
		return v
	}
	var wait sync.WaitGroup
	if o.VIPApp != "" {
		// Where the API does not tell, they are not known.
		wait.Go(func() { v.Pods, _ = o.vipPods(ctx) })
	}
	if err := readyAt(ctx, o.Kubeconfig, o.URLs[0]); err != nil {
		v.Problem = cause(err)
	}
	wait.Wait()
	return v
}

// cause is an error without the request it is about.
func cause(err error) string {
	var request *url.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer within " + vipPatience.String()
	case errors.As(err, &request):
		err = request.Err
	}
	return firstLine(err.Error())
}

// readyAt is nil where the API is ready at that address.
func readyAt(ctx context.Context, kubeconfig []byte, at string) error {
	ctx, cancel := context.WithTimeout(ctx, vipPatience)
	defer cancel()
	c, err := kube.New(kubeconfig, at)
	if err != nil {
		return err
	}
	// A connection that is kept would be one to who had the address before.
	defer c.HTTP.CloseIdleConnections()
	_, err = c.Core.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	return err
}

func (o *Observer) vipPods(ctx context.Context) ([]VIPPod, error) {
	c, err := Connect(ctx, o.Kubeconfig, o.URLs)
	if err != nil {
		return nil, err
	}
	list, err := c.Core.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + o.VIPApp})
	if err != nil {
		return nil, err
	}
	pods := []VIPPod{}
	for i := range list.Items {
		pods = append(pods, VIPPod{Node: list.Items[i].Spec.NodeName, State: podState(&list.Items[i])})
	}
	slices.SortFunc(pods, func(a, b VIPPod) int { return strings.Compare(a.Node, b.Node) })
	return pods, nil
}

// podState is what keeps a pod from working.
func podState(p *corev1.Pod) string {
	for _, s := range p.Status.ContainerStatuses {
		switch {
		case s.State.Waiting != nil && s.State.Waiting.Reason != "":
			return s.State.Waiting.Reason
		case s.State.Terminated != nil:
			return "ended: " + s.State.Terminated.Reason
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return podReady
		}
	}
	return string(p.Status.Phase)
}

// hasAddress reports whether a kernel's list of its addresses has that one.
func hasAddress(list string, a netip.Addr) bool {
	at := false
	for line := range strings.Lines(list) {
		line = strings.TrimSpace(line)
		if at && strings.HasSuffix(line, "host LOCAL") {
			return true
		}
		at = strings.HasSuffix(line, "|-- "+a.String())
	}
	return false
}
