package op

import (
	"fmt"
	"time"

	"github.com/k3lab/k3lab/internal/cluster"
	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/desired"
	"github.com/k3lab/k3lab/internal/fault"
)

// vipAllowed is how long the API may not answer at the VIP when all else is whole
// and nothing is on its way: K3s looks for new manifests each 15 seconds, and a pod
// that has failed twice is tried again.
const vipAllowed = time.Minute

// vipWait waits for the API to answer at the VIP.
type vipWait struct {
	lab     *config.Lab
	now     func() time.Time
	version func() string // what K3s says of itself
	since   time.Time     // when nothing was on its way any more
}

// look says what is waited for, and why it is of no use to wait any longer.
func (v *vipWait) look(h *cluster.Health) (waiting string, err error) {
	if h.VIP == nil || h.VIP.Problem == "" {
		return "", nil
	}
	now := v.now()
	if v.since.IsZero() || h.VIP.Coming() {
		v.since = now
	}
	if now.Sub(v.since) < vipAllowed {
		return "waiting for the API at the VIP " + h.VIP.Address, nil
	}
	return "", v.fault(h.VIP)
}

func (v *vipWait) fault(vip *cluster.VIP) error {
	server := v.lab.Servers()[0].Name
	if len(vip.Holders) > 0 {
		server = vip.Holders[0]
	}
	kubectl := "k3lab ssh " + server + " -- sudo k3s kubectl -n kube-system describe " // there may be no kubeconfig here yet
	switch {
	case !v.lab.Manages(config.ManageHA):
		return fault.New(fault.Unhealthy, "", "look at what keeps that address: k3lab does not, as ha is not managed", "%s", vip)
	case v.lab.Network.VIPProvider != config.VIPKubeVIP:
		return fault.New(fault.Unhealthy, "", "k3lab ssh "+server+" -- journalctl -u keepalived -n 50", "%s", vip)
	case len(vip.Pods) == 0:
		return fault.New(fault.Unhealthy, "", "set vip_provider: keepalived in terraform/vars/network.yaml, which needs no pods; or look at "+
			kubectl+"addon,daemonset "+desired.KubeVIPApp, "%s; K3s says it is %s", vip, v.version())
	}
	return fault.New(fault.Unhealthy, "", kubectl+"pods -l app.kubernetes.io/name="+desired.KubeVIPApp, "%s", vip)
}

// vipNotes are what does not keep the API away from the VIP, and would where its
// holder fails.
func vipNotes(vip *cluster.VIP) []string {
	if vip.Problem != "" {
		return nil // which names them
	}
	var out []string
	for _, p := range vip.Failing() {
		out = append(out, fmt.Sprintf("kube-vip does not run on %s (%s): that server cannot take the VIP", p.Node, p.State))
	}
	return out
}
