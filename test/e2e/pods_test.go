package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// podImages names archives with a pause image and docker.io/library/busybox, for a
// K3s whose pods are real on machines that reach no registry.
const podImages = "K3LAB_TEST_IMAGES"

// podNamespaces are namespaces by what their pods may reach in which: each has a
// pod that serves on one machine and one that asks on another.
var podNamespaces = map[string]struct {
	labels string
	may    []string
}{
	"try-open":     {"{}", []string{"try-open", "try-ingress"}},
	"try-isolated": {"{k3lab.io/policy: isolated}", []string{"try-open", "try-isolated", "try-ingress"}},
	"try-denied":   {"{k3lab.io/policy: default-deny}", []string{"try-denied"}},
	"try-ingress":  {"{k3lab.io/provides: ingress}", []string{"try-open", "try-isolated", "try-denied", "try-ingress"}},
}

const podManifest = `apiVersion: v1
kind: Namespace
metadata: {name: %[1]s, labels: %[2]s}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: %[1]s, labels: {app: web}}
spec:
  nodeName: agent-1
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  containers:
    - {name: web, image: docker.io/library/busybox:latest, imagePullPolicy: Never, command: [busybox, httpd, -f, -p, "8080", -h, /etc]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: %[1]s}
spec:
  nodeName: agent-2
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  containers:
    - {name: client, image: docker.io/library/busybox:latest, imagePullPolicy: Never, command: [busybox, sleep, "3600"]}
---
`

const serviceManifest = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: try-open}
spec:
  type: LoadBalancer
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
`

// pods: network policies and the firewall hold for the traffic of real pods.
func pods(t *testing.T, l *lab) {
	if os.Getenv(podImages) == "" {
		t.Skip(podImages + " names no archives of images")
	}
	bringImages(t, l, "agent-1", "agent-2")
	var manifests strings.Builder
	for name, n := range podNamespaces {
		fmt.Fprintf(&manifests, podManifest, name, n.labels)
	}
	onStdin(l, "server-1", manifests.String()+serviceManifest, "k3s kubectl apply -f -")
	defer l.onMachine("server-1", "k3s", "kubectl", "delete", "--wait=false", "namespace", "try-open", "try-isolated", "try-denied", "try-ingress")
	l.exit(0, "up", "--yes") // gives the namespaces their policies
	address := map[string]string{}
	eventually(t, 2*time.Minute, "the pods run", func() bool { return running(t, l, address) })

	for from, n := range podNamespaces {
		for _, to := range n.may {
			eventually(t, 30*time.Second, from+" reaches "+to, func() bool { return podReaches(l, from, address[to]) == nil })
		}
	}
	for from, n := range podNamespaces {
		for to := range podNamespaces {
			if err := podReaches(l, from, address[to]); (err == nil) != slices.Contains(n.may, to) {
				t.Errorf("from %s to %s: %v; may reach %v", from, to, err, n.may)
			}
		}
	}
	fromOutside(t, l)
}

// bringImages gives machines the images that real pods are made of, where archives
// of them are named: the stand-in's pods need none.
func bringImages(t *testing.T, l *lab, machines ...string) {
	t.Helper()
	for _, archive := range strings.Fields(os.Getenv(podImages)) {
		text, err := os.ReadFile(archive)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range machines {
			onStdin(l, m, string(text), "k3s ctr --namespace k8s.io images import -")
		}
	}
}

// running fills in the addresses of the pods that serve, and reports whether all
// pods run.
func running(t *testing.T, l *lab, address map[string]string) bool {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Name, Namespace string }
			Status   struct{ Phase, PodIP string }
		}
	}
	text := onStdin(l, "server-1", "", "k3s kubectl get pods --all-namespaces -o json")
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, p := range list.Items {
		if _, ours := podNamespaces[p.Metadata.Namespace]; ours && p.Status.Phase == "Running" && p.Status.PodIP != "" {
			count++
			if p.Metadata.Name == "web" {
				address[p.Metadata.Namespace] = p.Status.PodIP
			}
		}
	}
	return count == 2*len(podNamespaces)
}

// podReaches asks the pod at an address from a namespace's client.
func podReaches(l *lab, from, address string) error {
	ask := fmt.Sprintf(`sudo k3s kubectl exec -n %s client -- sh -c 'echo "GET /passwd" | busybox nc -w 2 %s 8080'`, from, address)
	cmd := exec.Command(l.bin, "-C", l.dir, "ssh", "server-1", "--", ask)
	cmd.Env = l.env
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s", err, out)
	case !strings.Contains(string(out), "HTTP/1"):
		return fmt.Errorf("no answer: %s", out)
	}
	return nil
}

// fromOutside asks for the service as people in the network do: its address of
// the load balancers' pool answers, its NodePort does not.
func fromOutside(t *testing.T, l *lab) {
	vip := vipOf(t, l).As4()
	pool := net.IPv4(vip[0], vip[1], vip[2], 200).String()
	// What MetalLB does: the status names the address, a machine answers for it.
	onStdin(l, "server-1", `{"status": {"loadBalancer": {"ingress": [{"ip": "`+pool+`"}]}}}`,
		"k3s kubectl patch service web -n try-open --subresource=status --type=merge --patch-file=/dev/stdin")
	l.onMachine("agent-1", "ip", "address", "add", pool+"/32", "dev", "eth0")
	defer l.onMachine("agent-1", "ip", "address", "del", pool+"/32", "dev", "eth0")
	reaches := func(address string) error {
		c, err := net.DialTimeout("tcp", address, 2*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		answer := make([]byte, 6)
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err = c.Write([]byte("GET /passwd\n\n")); err == nil {
			_, err = io.ReadFull(c, answer)
		}
		if err == nil && string(answer) != "HTTP/1" {
			err = fmt.Errorf("answers %q", answer)
		}
		return err
	}
	var last error
	defer func() {
		if last != nil {
			t.Logf("the load balancer's address: %v", last)
		}
	}()
	eventually(t, 20*time.Second, "the load balancer's address answers", func() bool { last = reaches(pool + ":80"); return last == nil })
	for _, m := range l.members() {
		if err := reaches(net.JoinHostPort(m.Address, "30080")); err == nil {
			t.Errorf("%s: the NodePort answers, and firewall.node_ports_from is not set", m.Name)
		}
	}
	const closed = "\nk3s:\n"
	opened := "\nfirewall:\n  node_ports_from: [" + l.sandbox().CIDR + "]" + closed
	l.edit(platformSettings, closed, opened)
	l.exit(0, "up", "--yes")
	for _, m := range l.members() {
		if err := reaches(net.JoinHostPort(m.Address, "30080")); err != nil {
			t.Errorf("%s: the NodePort is open in the settings: %v", m.Name, err)
		}
	}
	l.edit(platformSettings, opened, closed)
	l.exit(0, "up", "--yes")
}
