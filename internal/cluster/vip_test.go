package cluster_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3lab/k3lab/internal/cluster"
)

const anyKubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: http://127.0.0.1:1}}]
contexts: [{name: a, context: {cluster: a}}]
current-context: a
`

// fibTrie is how the kernel lists addresses: each also in its network.
const fibTrie = `Main:
  +-- 0.0.0.0/0 3 0 5
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.11
           /32 host LOCAL
`

const fibTrieWithVIP = fibTrie + `        |-- 192.0.2.10
           /32 host LOCAL
`

// apiAt serves what a look asks of the API; ready is what it says of itself.
func apiAt(t *testing.T, ready int, pods ...corev1.Pod) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer any
		switch r.URL.Path {
		case "/readyz":
			w.WriteHeader(ready)
			return
		case "/api/v1/nodes":
			answer = corev1.NodeList{TypeMeta: metav1.TypeMeta{Kind: "NodeList", APIVersion: "v1"}}
		case "/api/v1/namespaces/kube-system/pods":
			if got := r.URL.Query().Get("labelSelector"); got != "app.kubernetes.io/name=vip" {
				t.Errorf("asked for pods with %s", got)
			}
			answer = corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: pods}
		default:
			t.Errorf("asked for %s", r.URL)
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func pod(node string, status corev1.PodStatus) corev1.Pod {
	return corev1.Pod{Spec: corev1.PodSpec{NodeName: node}, Status: status}
}

func TestLookAtTheVIP(t *testing.T) {
	waiting := func(reason string) corev1.PodStatus {
		return corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{
			{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}},
		}}
	}
	ready := corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	const dead = http.StatusServiceUnavailable
	tests := map[string]struct {
		ready   int // what the API says at the VIP; 0: nobody is there
		app     string
		pods    []corev1.Pod
		holders []string
		want    []string // of the problems
		coming  bool
		failing []cluster.VIPPod // told where it answers
	}{
		"it answers": {ready: http.StatusOK, app: "vip", holders: []string{"server-2"}, failing: []cluster.VIPPod{{Node: "server-3", State: "Pending"}},
			pods: []corev1.Pod{pod("server-2", ready), pod("server-3", corev1.PodStatus{Phase: corev1.PodPending})}},
		"who has it is not ready": {ready: dead, holders: []string{"server-1"}, want: []string{
			"vip: the API does not answer at 192.0.2.10, which server-1 has: the server is currently unable to handle the request",
		}},
		"nobody has it, no pods were made": {app: "vip", want: []string{
			"vip: the API does not answer at 192.0.2.10, which no server has: dial tcp 127.0.0.1:1: connect: connection refused; pods that keep it: none",
		}},
		"two have it, and pods fail": {
			ready: dead, app: "vip", holders: []string{"server-1", "server-3"},
			pods: []corev1.Pod{pod("server-3", ready), pod("server-1", waiting("ImagePullBackOff")), pod("server-2", corev1.PodStatus{Phase: corev1.PodPending})},
			want: []string{"vip: the API does not answer at 192.0.2.10, which server-1 and server-3 has: the server is currently unable to handle the request; " +
				"pods that keep it: server-1 ImagePullBackOff, server-2 Pending, server-3 ready"},
		},
		"an image is on its way": {
			ready: dead, app: "vip", pods: []corev1.Pod{pod("server-1", waiting("ContainerCreating"))}, coming: true,
			want: []string{"vip: the API does not answer at 192.0.2.10, which no server has: the server is currently unable to handle the request; " +
				"pods that keep it: server-1 ContainerCreating"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := healthy()
			w.addresses = map[string]string{"server-1": fibTrie, "server-2": fibTrie, "server-3": fibTrie}
			for _, m := range tt.holders {
				w.addresses[m] = fibTrieWithVIP
			}
			at := "http://127.0.0.1:1"
			if tt.ready != 0 {
				at = apiAt(t, tt.ready, tt.pods...)
			}
			o := observer(w)
			o.VIP, o.VIPApp, o.Kubeconfig = netip.MustParseAddr("192.0.2.10"), tt.app, []byte(anyKubeconfig)
			o.URLs = []string{at, apiAt(t, http.StatusOK, tt.pods...)}
			h := o.Look(context.Background())
			var got []string
			for _, p := range h.Problems() {
				if len(p) > 4 && p[:4] == "vip:" {
					got = append(got, p)
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.holders, h.VIP.Holders); d != "" {
				t.Errorf("holders (-want +got):\n%s", d)
			}
			if h.VIP.Problem == "" && !cmp.Equal(tt.failing, h.VIP.Failing()) {
				t.Errorf("failing: %v, want %v", h.VIP.Failing(), tt.failing)
			}
			if h.VIP.Coming() != tt.coming {
				t.Errorf("coming: %v, want %v", h.VIP.Coming(), tt.coming)
			}
		})
	}
}

func TestNoVIPIsNotLookedAt(t *testing.T) {
	if h := observer(healthy()).Look(context.Background()); h.VIP != nil {
		t.Errorf("%+v", h.VIP)
	}
}
