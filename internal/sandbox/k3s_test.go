//go:build linux

package sandbox

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestRealK3s runs the K3s release that K3LAB_K3S_BINARY names on two machines,
// with a pod on each. It needs a pause image in K3LAB_SANDBOX_IMAGES.
func TestRealK3s(t *testing.T) {
	needRoot(t)
	binary := os.Getenv("K3LAB_K3S_BINARY")
	if binary == "" || os.Getenv("K3LAB_SANDBOX_IMAGES") == "" {
		t.Skip("K3LAB_K3S_BINARY names no release of K3s, or K3LAB_SANDBOX_IMAGES no pause image")
	}
	t.Setenv("K3LAB_SANDBOX_DIR", t.TempDir())
	leavesNothing(t, "test-k3s")
	l := up(t, options("test-k3s"))
	for id, role := range map[int]string{201: "server", 202: "agent"} {
		l.create(id)
		l.power(id, "start")
		l.put(id, binary, "/usr/local/bin/k3s")
		config := "token: secret\n"
		if role == "agent" {
			config += "server: https://" + l.ip(201) + ":6443\n"
		} else {
			config += "cluster-init: true\ndisable: [traefik, servicelb, metrics-server, coredns, local-storage]\n"
		}
		unit := "[Service]\nType=notify\nKillMode=process\nDelegate=yes\nLimitNOFILE=1048576\nTasksMax=infinity\nRestart=always\nTimeoutStartSec=0\nExecStart=/usr/local/bin/k3s " + role + "\n"
		name := "k3s"
		if role == "agent" {
			name = "k3s-agent"
		}
		l.run(id, "sudo mkdir -p /etc/rancher/k3s; sudo chmod 0755 /usr/local/bin/k3s; "+
			"printf '"+config+"' | sudo tee /etc/rancher/k3s/config.yaml >/dev/null; "+
			"printf '"+unit+"' | sudo tee /etc/systemd/system/"+name+".service >/dev/null; sudo systemctl start --no-block "+name)
	}
	start := time.Now()
	kubectl := func(args string) string {
		return l.run(201, "sudo k3s kubectl "+args+" 2>/dev/null || :")
	}
	within(t, 3*time.Minute, "both nodes are ready", func() bool {
		return strings.Count(kubectl("get nodes --no-headers"), " Ready ") == 2
	})
	t.Logf("two nodes are ready after %v", time.Since(start).Round(time.Millisecond))
	const daemonSet = `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: idle}
spec:
  selector: {matchLabels: {app: idle}}
  template:
    metadata: {labels: {app: idle}}
    spec:
      containers: [{name: idle, image: "IMAGE", imagePullPolicy: Never}]
`
	image := l.run(201, "sudo k3s crictl images -o json | grep -o '\"[^\" ]*pause[^\" ]*:[^\" ]*\"' | head -1 | tr -d '\"'")
	l.run(201, "sudo k3s kubectl apply -f - <<'EOF'\n"+strings.Replace(daemonSet, "IMAGE", image, 1)+"EOF")
	within(t, 2*time.Minute, "a pod runs on each node", func() bool {
		return strings.Count(kubectl("get pods --no-headers"), " Running ") == 2
	})
	// A machine with pods, mounts and networks of its own dies as any other.
	l.power(202, "stop")
	wants(t, "status", l.status(202), "stopped")
	within(t, 3*time.Minute, "the agent is back", func() bool {
		if l.status(202) == "stopped" {
			l.power(202, "start")
			l.run(202, "sudo systemctl start --no-block k3s-agent")
		}
		return strings.Count(kubectl("get nodes --no-headers"), " Ready ") == 2
	})
}
