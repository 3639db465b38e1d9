package k3s

import (
	"encoding/json"
	"errors"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3lab/k3lab/internal/config"
)

func getNode(t *testing.T, m *machine, name string) *corev1.Node {
	t.Helper()
	node, err := m.clients(t).CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// shape is what k3lab reads of a Node.
type shape struct {
	ProviderID   string
	PodCIDRs     int
	Taints       []corev1.Taint
	Labels       map[string]string
	Annotations  map[string]string
	Finalizers   map[string]bool
	Addresses    []corev1.NodeAddress
	Conditions   map[corev1.NodeConditionType]corev1.ConditionStatus
	Version      string
	KubeletPort  int32
	Architecture string
}

// Annotations whose value differs from run to run, with the form of the value.
var varying = map[string]string{
	"etcd.k3s.cattle.io/node-name":                 `^server-1-[0-9a-f]{8}$`,
	"etcd.k3s.cattle.io/local-snapshots-timestamp": `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`,
	"k3s.io/encryption-config-hash":                `^start-[0-9a-f]{64}$`,
	"k3s.io/node-config-hash":                      `^[A-Z2-7]{52}====$`,
	"flannel.alpha.coreos.com/backend-data":        `^\{"VNI":1,"VtepMAC":"[0-9a-f:]{17}"\}$`,
}

func shapeOf(t *testing.T, node *corev1.Node) shape {
	t.Helper()
	s := shape{
		ProviderID: node.Spec.ProviderID, PodCIDRs: len(node.Spec.PodCIDRs), Taints: node.Spec.Taints,
		Labels: node.Labels, Annotations: node.Annotations, Finalizers: map[string]bool{},
		Addresses:  node.Status.Addresses,
		Conditions: map[corev1.NodeConditionType]corev1.ConditionStatus{},
		Version:    node.Status.NodeInfo.KubeletVersion, Architecture: node.Status.NodeInfo.Architecture,
		KubeletPort: node.Status.DaemonEndpoints.KubeletEndpoint.Port,
	}
	for key, form := range varying {
		if value, ok := s.Annotations[key]; ok && regexp.MustCompile(form).MatchString(value) {
			s.Annotations[key] = form
		}
	}
	for _, finalizer := range node.Finalizers {
		s.Finalizers[finalizer] = true
	}
	for _, condition := range node.Status.Conditions {
		s.Conditions[condition.Type] = condition.Status
	}
	return s
}

// base is what the Node of an agent looks like.
func base(t *testing.T, m *machine, args []string) shape {
	t.Helper()
	encoded, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	return shape{
		ProviderID: "k3s://" + m.name,
		PodCIDRs:   1,
		Labels: map[string]string{
			"beta.kubernetes.io/arch": runtime.GOARCH, "kubernetes.io/arch": runtime.GOARCH,
			"beta.kubernetes.io/os": "linux", "kubernetes.io/os": "linux",
			"beta.kubernetes.io/instance-type": "k3s", "node.kubernetes.io/instance-type": "k3s",
			"kubernetes.io/hostname": m.name,
		},
		Annotations: map[string]string{
			"alpha.kubernetes.io/provided-node-ip":                   m.ip,
			"flannel.alpha.coreos.com/backend-data":                  varying["flannel.alpha.coreos.com/backend-data"],
			"flannel.alpha.coreos.com/backend-type":                  "vxlan",
			"flannel.alpha.coreos.com/kube-subnet-manager":           "true",
			"flannel.alpha.coreos.com/public-ip":                     m.ip,
			"k3s.io/hostname":                                        m.name,
			"k3s.io/internal-ip":                                     m.ip,
			"k3s.io/node-args":                                       string(encoded),
			"k3s.io/node-config-hash":                                varying["k3s.io/node-config-hash"],
			"k3s.io/node-env":                                        "{}",
			"node.alpha.kubernetes.io/ttl":                           "0",
			"volumes.kubernetes.io/controller-managed-attach-detach": "true",
		},
		// The etcd controller holds on to agents as well.
		Finalizers: map[string]bool{"wrangler.cattle.io/node": true, "wrangler.cattle.io/managed-etcd-controller": true},
		Addresses:  []corev1.NodeAddress{{Type: "InternalIP", Address: m.ip}, {Type: "Hostname", Address: m.name}},
		Conditions: map[corev1.NodeConditionType]corev1.ConditionStatus{
			"Ready": "True", "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False",
		},
		Version:      version(t, m),
		KubeletPort:  10250,
		Architecture: runtime.GOARCH,
	}
}

// version is the release that the binary says it is.
func version(t *testing.T, m *machine) string {
	t.Helper()
	fields := strings.Fields(m.ok(t, "--version"))
	if len(fields) < 3 {
		t.Fatalf("no version: %q", fields)
	}
	return fields[2]
}

func serverNode(t *testing.T, c *cluster) {
	args := []string{
		"server", "--token", "********", "--node-ip", c.first.ip, "--secrets-encryption", "true",
		"--disable", "traefik", "--disable", "servicelb", "--disable", "coredns",
		"--disable", "metrics-server", "--disable", "local-storage",
	}
	args = append(args, hardenedArgs(t, c.first, config.RoleServer)...)
	args = append(args, "--cluster-init", "true", "--write-kubeconfig-mode", "0640", "--tls-san", "extra.example",
		"--node-label", "example/base=1", "--node-label", "example/ten=10", "--node-label", "example/twenty=20",
		"--no-such-key", "1")
	want := base(t, c.first, args)
	for _, key := range []string{"node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/etcd"} {
		want.Labels[key] = "true"
	}
	for key, value := range map[string]string{"example/base": "1", "example/ten": "10", "example/twenty": "20"} {
		want.Labels[key] = value
	}
	for _, key := range []string{"etcd.k3s.cattle.io/node-name", "etcd.k3s.cattle.io/local-snapshots-timestamp", "k3s.io/encryption-config-hash"} {
		want.Annotations[key] = varying[key]
	}
	want.Annotations["etcd.k3s.cattle.io/node-address"] = c.first.ip
	want.Conditions["EtcdIsVoter"] = "True"
	waitShape(t, c.first, want)

	t.Run("etcd name is the member's", func(t *testing.T) {
		name := getNode(t, c.first, "server-1").Annotations["etcd.k3s.cattle.io/node-name"]
		if got := c.first.read(t, serverDir+"db/etcd/name"); got != name {
			t.Errorf("db/etcd/name is %q, the annotation %q", got, name)
		}
	})
	t.Run("password", func(t *testing.T) {
		secret, err := c.first.clients(t).CoreV1().Secrets("kube-system").Get(t.Context(), "server-1.node-password.k3s", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(secret.Data["hash"]) == 0 || strings.Contains(string(secret.Data["hash"]), strings.TrimSpace(c.first.read(t, "/etc/rancher/node/password"))) {
			t.Errorf("the Secret holds no hash of the password: keys %v", len(secret.Data))
		}
	})
}

func agentNode(t *testing.T, c *cluster) {
	args := []string{"agent", "--token", "********", "--node-ip", c.agent.ip, "--server", "https://" + c.first.ip + ":6443"}
	args = append(args, hardenedArgs(t, c.agent, config.RoleAgent)...)
	want := base(t, c.agent, args)
	waitShape(t, c.first, want)
}

// waitShape waits until a Node looks like this: controllers complete it by and by.
func waitShape(t *testing.T, m *machine, want shape) {
	t.Helper()
	name := strings.TrimPrefix(want.ProviderID, "k3s://")
	soon(t, "node "+name, func() error {
		if diff := cmp.Diff(want, shapeOf(t, getNode(t, m, name))); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}
