package op

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/cluster"
	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/fault"
)

// TestTheVIPIsWaitedFor: for a minute, and longer only while an image is on its way.
func TestTheVIPIsWaitedFor(t *testing.T) {
	silent := func(pods ...cluster.VIPPod) *cluster.VIP {
		return &cluster.VIP{Address: "192.0.2.10", Problem: "connection refused", Pods: pods}
	}
	coming, failing := cluster.VIPPod{Node: "server-1", State: "ContainerCreating"}, cluster.VIPPod{Node: "server-1", State: "ImagePullBackOff"}
	const asIs = "vip: the API does not answer at 192.0.2.10, which no server has: connection refused"
	tests := map[string]struct {
		change func(*config.Lab)
		looks  []*cluster.VIP // 25 seconds apart; the last one is seen on and on
		took   time.Duration
		want   string
	}{
		"there is none":  {looks: []*cluster.VIP{nil}},
		"it answers":     {looks: []*cluster.VIP{{Address: "192.0.2.10"}}},
		"it comes later": {looks: []*cluster.VIP{silent(), silent(), {Address: "192.0.2.10"}}, took: 50 * time.Second},
		"keepalived does not keep it": {
			looks: []*cluster.VIP{{Address: "192.0.2.10", Problem: "connection refused", Holders: []string{"server-2"}}}, took: 75 * time.Second,
			want: "vip: the API does not answer at 192.0.2.10, which server-2 has: connection refused (try: k3lab ssh server-2 -- journalctl -u keepalived -n 50)",
		},
		"somebody else keeps it": {
			change: func(l *config.Lab) { l.Manage = []config.Concern{config.ManageK3s} },
			looks:  []*cluster.VIP{silent()}, took: 75 * time.Second,
			want: asIs + " (try: look at what keeps that address: k3lab does not, as ha is not managed)",
		},
		"an image takes long, and fails": {
			change: func(l *config.Lab) { l.Network.VIPProvider = config.VIPKubeVIP },
			looks:  []*cluster.VIP{silent(coming), silent(coming), silent(coming), silent(coming), silent(failing)}, took: 150 * time.Second,
			want: asIs + "; pods that keep it: server-1 ImagePullBackOff (try: k3lab ssh server-1 -- sudo k3s kubectl -n kube-system describe pods -l app.kubernetes.io/name=k3lab-kube-vip)",
		},
		"K3s makes no pods": {
			change: func(l *config.Lab) { l.Network.VIPProvider = config.VIPKubeVIP },
			looks:  []*cluster.VIP{silent([]cluster.VIPPod{}...)}, took: 75 * time.Second,
			want: asIs + "; pods that keep it: none; K3s says it is v1 (of some kind) (try: set vip_provider: keepalived in terraform/vars/network.yaml, " +
				"which needs no pods; or look at k3lab ssh server-1 -- sudo k3s kubectl -n kube-system describe addon,daemonset k3lab-kube-vip)",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			lab := newWorld().step(t).lab
			if tt.change != nil {
				tt.change(lab)
			}
			now := time.Unix(0, 0)
			v := vipWait{lab: lab, now: func() time.Time { return now }, version: func() string { return "v1 (of some kind)" }}
			for i := 0; ; i++ {
				waiting, err := v.look(&cluster.Health{VIP: tt.looks[min(i, len(tt.looks)-1)]})
				if err != nil && fault.KindOf(err) != fault.Unhealthy {
					t.Errorf("kind %d, want unhealthy", fault.KindOf(err))
				}
				if waiting != "" && err == nil {
					if waiting != "waiting for the API at the VIP 192.0.2.10" {
						t.Errorf("says %q", waiting)
					}
					now = now.Add(25 * time.Second)
					continue
				}
				got := ""
				if err != nil {
					got = err.Error()
				}
				if took := now.Sub(time.Unix(0, 0)); got != tt.want || took != tt.took {
					t.Errorf("after %s: %s\nwant after %s: %s", took, got, tt.took, tt.want)
				}
				return
			}
		})
	}
}

// TestPodsThatCouldNotTakeTheVIPAreTold: also while the API answers there.
func TestPodsThatCouldNotTakeTheVIPAreTold(t *testing.T) {
	vip := &cluster.VIP{Address: "192.0.2.10", Pods: []cluster.VIPPod{
		{Node: "server-1", State: "ready"}, {Node: "server-2", State: "ImagePullBackOff"}, {Node: "server-3", State: "Pending"},
	}}
	want := []string{
		"kube-vip does not run on server-2 (ImagePullBackOff): that server cannot take the VIP",
		"kube-vip does not run on server-3 (Pending): that server cannot take the VIP",
	}
	if d := cmp.Diff(want, vipNotes(vip)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	vip.Problem = "connection refused"
	if notes := vipNotes(vip); notes != nil {
		t.Errorf("said twice: %v", notes)
	}
}
