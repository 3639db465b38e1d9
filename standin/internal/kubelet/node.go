package kubelet

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3lab/k3lab/standin/internal/version"
)

// Names K3s gives to things on Node objects.
const (
	annotationArgs       = "k3s.io/node-args"
	annotationEnv        = "k3s.io/node-env"
	annotationConfigHash = "k3s.io/node-config-hash"
	annotationEtcdName   = "etcd.k3s.cattle.io/node-name"
	annotationEtcdIP     = "etcd.k3s.cattle.io/node-address"
	labelControlPlane    = "node-role.kubernetes.io/control-plane"
	labelEtcd            = "node-role.kubernetes.io/etcd"
	conditionVoter       = "EtcdIsVoter"
	// FinalizerEtcd keeps a Node until its etcd member is removed.
	FinalizerEtcd = "wrangler.cattle.io/managed-etcd-controller"
	// FinalizerNode keeps a Node until its password is forgotten.
	FinalizerNode = "wrangler.cattle.io/node"

	omitted = "********"
)

// secretArgs are followed by a value nobody may see.
var secretArgs = []string{
	"--token", "-t", "--agent-token", "--datastore-endpoint", "--vpn-auth",
	"--etcd-s3-access-key", "--etcd-s3-secret-key", "--etcd-s3-session-token",
}

var secretEnv = []string{
	"K3S_TOKEN", "K3S_AGENT_TOKEN", "K3S_DATASTORE_ENDPOINT", "K3S_VPN_AUTH",
	"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
}

// nodeArgs is the command line as the annotation shows it: flag and value
// apart, secrets masked.
func nodeArgs(args []string) []string {
	list := []string{}
	for _, arg := range args {
		if name, value, ok := strings.Cut(arg, "="); ok && strings.HasPrefix(arg, "-") {
			list = append(list, name, value)
		} else {
			list = append(list, arg)
		}
	}
	for i := range list[:max(len(list)-1, 0)] {
		if slices.Contains(secretArgs, list[i]) {
			list[i+1] = omitted
		}
	}
	return list
}

func nodeEnv(environ []string) map[string]string {
	env := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "K3S_") {
			continue
		}
		if slices.Contains(secretEnv, name) {
			value = omitted
		}
		env[name] = value
	}
	return env
}

func (k *Kubelet) annotations() (map[string]string, error) {
	args, err := json.Marshal(nodeArgs(k.config.Args))
	if err != nil {
		return nil, err
	}
	env, err := json.Marshal(nodeEnv(os.Environ()))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append(args, env...))
	annotations := map[string]string{
		annotationArgs:       string(args),
		annotationEnv:        string(env),
		annotationConfigHash: base32.StdEncoding.EncodeToString(sum[:]),

		"alpha.kubernetes.io/provided-node-ip":                   k.config.IP,
		"k3s.io/hostname":                                        k.config.Name,
		"k3s.io/internal-ip":                                     k.config.IP,
		"volumes.kubernetes.io/controller-managed-attach-detach": "true",
		"node.alpha.kubernetes.io/ttl":                           "0",
	}
	if k.config.ExternalIP != "" {
		annotations["k3s.io/external-ip"] = k.config.ExternalIP
	}
	if k.config.EtcdName != "" {
		annotations[annotationEtcdName] = k.config.EtcdName
		annotations[annotationEtcdIP] = k.config.IP
	}
	if k.config.EncryptionHash != "" {
		annotations["k3s.io/encryption-config-hash"] = "start-" + k.config.EncryptionHash
	}
	if k.flannel() {
		if k.config.Cluster.FlannelBackend == "vxlan" {
			annotations["flannel.alpha.coreos.com/backend-data"] = `{"VNI":1,"VtepMAC":"` + vtepMAC(k.config.Name) + `"}`
		}
		annotations["flannel.alpha.coreos.com/backend-type"] = k.config.Cluster.FlannelBackend
		annotations["flannel.alpha.coreos.com/kube-subnet-manager"] = "true"
		annotations["flannel.alpha.coreos.com/public-ip"] = k.config.IP
	}
	return annotations, nil
}

// vtepMAC is a locally administered address that stays the same for a node.
func vtepMAC(node string) string {
	sum := sha256.Sum256([]byte(node))
	return net.HardwareAddr{sum[0]&^1 | 2, sum[1], sum[2], sum[3], sum[4], sum[5]}.String()
}

func (k *Kubelet) labels() map[string]string {
	labels := map[string]string{
		"beta.kubernetes.io/arch":          runtime.GOARCH,
		"beta.kubernetes.io/instance-type": "k3s",
		"beta.kubernetes.io/os":            "linux",
		"kubernetes.io/arch":               runtime.GOARCH,
		"kubernetes.io/hostname":           k.config.Name,
		"kubernetes.io/os":                 "linux",
		"node.kubernetes.io/instance-type": "k3s",
	}
	if k.config.EtcdName != "" {
		labels[labelControlPlane] = "true"
	}
	for _, label := range k.config.Labels {
		name, value, _ := strings.Cut(label, "=")
		labels[name] = value
	}
	return labels
}

// parseTaint reads key=value:Effect, key:Effect or key=:Effect.
func parseTaint(text string) (corev1.Taint, error) {
	rest, effect, ok := strings.Cut(text, ":")
	switch corev1.TaintEffect(effect) {
	case corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
	default:
		ok = false
	}
	key, value, _ := strings.Cut(rest, "=")
	if !ok || key == "" {
		return corev1.Taint{}, fmt.Errorf("node-taint: invalid taint %q, want key=value:Effect", text)
	}
	return corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)}, nil
}

// fresh is the Node as it is first registered.
func (k *Kubelet) fresh() (*corev1.Node, error) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: k.config.Name}}
	node.Spec.ProviderID = "k3s://" + k.config.Name
	for _, text := range k.config.Taints {
		taint, err := parseTaint(text)
		if err != nil {
			return nil, err
		}
		node.Spec.Taints = append(node.Spec.Taints, taint)
	}
	return node, k.describe(node)
}

// describe brings what this node says about itself up to date and leaves alone
// what others have written. As with a real kubelet, taints count only when the
// node is first registered.
func (k *Kubelet) describe(node *corev1.Node) error {
	annotations, err := k.annotations()
	if err != nil {
		return err
	}
	if node.Annotations == nil {
		node.Annotations = map[string]string{}
	}
	if node.Labels == nil {
		node.Labels = map[string]string{}
	}
	maps.Copy(node.Annotations, annotations)
	maps.Copy(node.Labels, k.labels())
	// K3s's etcd controller holds on to agents as well.
	for _, finalizer := range []string{FinalizerNode, FinalizerEtcd} {
		if !slices.Contains(node.Finalizers, finalizer) && node.DeletionTimestamp == nil {
			node.Finalizers = append(node.Finalizers, finalizer)
		}
	}
	return nil
}

// report fills in the node's status.
func (k *Kubelet) report(ctx context.Context, node *corev1.Node) {
	now := metav1.Now()
	node.Status.Capacity = k.capacity
	node.Status.Allocatable = k.capacity
	node.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: k.config.IP},
		{Type: corev1.NodeHostName, Address: k.config.Name},
	}
	if k.config.ExternalIP != "" {
		node.Status.Addresses = append(node.Status.Addresses,
			corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: k.config.ExternalIP})
	}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = Port
	node.Status.NodeInfo = corev1.NodeSystemInfo{
		MachineID:               readTrimmed("/etc/machine-id"),
		SystemUUID:              readTrimmed("/etc/machine-id"),
		BootID:                  readTrimmed("/proc/sys/kernel/random/boot_id"),
		KernelVersion:           readTrimmed("/proc/sys/kernel/osrelease"),
		OSImage:                 osImage(),
		ContainerRuntimeVersion: "containerd://2.1.4-k3s1",
		KubeletVersion:          version.Version,
		OperatingSystem:         "linux",
		Architecture:            runtime.GOARCH,
	}
	good := func(kind corev1.NodeConditionType, reason, message string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message}
	}
	conditions := []corev1.NodeCondition{
		good(corev1.NodeMemoryPressure, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
		good(corev1.NodeDiskPressure, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
		good(corev1.NodePIDPressure, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
		k.readiness(),
	}
	for _, condition := range conditions {
		setCondition(node, condition, now)
	}
	if k.config.Voter != nil {
		if voter, err := k.config.Voter(ctx); err == nil {
			setCondition(node, voterCondition(voter), now)
		}
	}
}

func voterCondition(voter bool) corev1.NodeCondition {
	if voter {
		return corev1.NodeCondition{
			Type: conditionVoter, Status: corev1.ConditionTrue,
			Reason: "MemberNotLearner", Message: "Node is a voting member of the etcd cluster",
		}
	}
	return corev1.NodeCondition{
		Type: conditionVoter, Status: corev1.ConditionFalse,
		Reason: "MemberIsLearner", Message: "Node has not been promoted to voting member of the etcd cluster",
	}
}

func (k *Kubelet) readiness() corev1.NodeCondition {
	if k.flannel() || cniConfigured() {
		return corev1.NodeCondition{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue,
			Reason: "KubeletReady", Message: "kubelet is posting ready status",
		}
	}
	return corev1.NodeCondition{
		Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "KubeletNotReady",
		Message: "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady " +
			"message:Network plugin returns error: cni plugin not initialized",
	}
}

func setCondition(node *corev1.Node, condition corev1.NodeCondition, now metav1.Time) {
	condition.LastHeartbeatTime = now
	condition.LastTransitionTime = now
	for i, old := range node.Status.Conditions {
		if old.Type != condition.Type {
			continue
		}
		if old.Status == condition.Status {
			condition.LastTransitionTime = old.LastTransitionTime
		}
		node.Status.Conditions[i] = condition
		return
	}
	node.Status.Conditions = append(node.Status.Conditions, condition)
}

// machineCapacity is what the machine has, read once.
func machineCapacity() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(memoryTotal(), resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(diskTotal("/var/lib"), resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(maxPods, resource.DecimalSI),
	}
}
