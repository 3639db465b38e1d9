// Package kubelet plays a node: it registers the Node object as K3s does,
// keeps its status and lease, serves the kubelet's ports, and has kwok declare
// the pods bound to the node running. No container ever runs.
package kubelet

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
	"k8s.io/component-helpers/node/util/sysctl"

	"github.com/k3lab/k3lab/standin/internal/protocol"
)

const (
	// Port is where the API reaches a kubelet.
	Port = 10250

	maxPods = 110
	// statusInterval is how often the status is reported when nothing changes.
	statusInterval = 5 * time.Minute
	// checkInterval is how often it is looked whether something has.
	checkInterval = 2 * time.Second
	retryInterval = 500 * time.Millisecond
)

// Config is what a node knows of itself.
type Config struct {
	Name, IP, ExternalIP string
	Labels, Taints       []string
	// Args is the command line the node-args annotation shows.
	Args        []string
	KubeletArgs []string
	ProxyArgs   []string
	// ProtectKernel refuses a kernel that is not set as kubelet wants it.
	ProtectKernel bool
	Cluster       protocol.AgentConfig
	// EtcdName is the node's datastore member; only servers have one.
	EtcdName string
	// EncryptionHash is the SHA-256, in hexadecimal, of what the server encrypts
	// secrets with; empty where it does not.
	EncryptionHash string
	// Voter tells whether that member votes; nil on agents.
	Voter func(context.Context) (bool, error)
	// Client has the node's own credentials, as a real kubelet's.
	Client *rest.Config
	// Admin writes what a node may not say of itself (role labels,
	// finalizers); K3s leaves that to its controllers. Nil on agents.
	Admin kubernetes.Interface
	TLS   *tls.Config
	// KubeProxy says whether to answer kube-proxy's health ports as well.
	KubeProxy bool
}

// Kubelet is one simulated node.
type Kubelet struct {
	config   Config
	kube     kubernetes.Interface
	capacity corev1.ResourceList
	serving  *tls.Config
	metrics  string // address of kube-proxy's
}

// New prepares a node.
func New(config Config) (*Kubelet, error) {
	kube, err := kubernetes.NewForConfig(config.Client)
	if err != nil {
		return nil, err
	}
	for _, taint := range config.Taints {
		if _, err := parseTaint(taint); err != nil {
			return nil, err
		}
	}
	flags, err := parseFlags(config.KubeletArgs)
	if err != nil {
		return nil, err
	}
	if config.ProtectKernel {
		if err := checkKernel(sysctl.New()); err != nil {
			return nil, err
		}
	}
	k := &Kubelet{config: config, kube: kube, capacity: machineCapacity()}
	quantity := k.capacity[corev1.ResourcePods]
	quantity.Set(int64(flags.MaxPods))
	k.capacity[corev1.ResourcePods] = quantity
	if k.serving, err = secure(config.TLS, flags); err != nil {
		return nil, err
	}
	k.metrics, err = proxyMetrics(config.ProxyArgs)
	return k, err
}

func (k *Kubelet) flannel() bool { return k.config.Cluster.FlannelBackend != "none" }

// Run registers the node, calls registered, and plays it until ctx is done.
func (k *Kubelet) Run(ctx context.Context, registered func()) error {
	if err := k.serve(ctx); err != nil {
		return err
	}
	if err := k.register(ctx); err != nil {
		return err
	}
	logrus.Infof("Registered node %s", k.config.Name)
	registered()
	go k.keepLease(ctx)
	if err := k.runPods(ctx); err != nil {
		return fmt.Errorf("starting the pod simulation: %w", err)
	}
	k.keepStatus(ctx)
	return nil
}

// register creates or updates the Node until that has worked once.
func (k *Kubelet) register(ctx context.Context) error {
	for {
		err := k.tryRegister(ctx)
		if err == nil {
			return nil
		}
		logrus.Infof("Waiting to register node %s: %v", k.config.Name, err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryInterval):
		}
	}
}

// writer is the client that writes the Node's metadata.
func (k *Kubelet) writer() kubernetes.Interface {
	if k.config.Admin != nil {
		return k.config.Admin
	}
	return k.kube
}

func (k *Kubelet) tryRegister(ctx context.Context) error {
	nodes := k.writer().CoreV1().Nodes()
	node, err := k.fresh()
	if err != nil {
		return err
	}
	// The status goes along with the creation, so that the node is seen
	// complete or not at all.
	k.report(ctx, node)
	_, err = nodes.Create(ctx, node, metav1.CreateOptions{})
	if err == nil || !apierrors.IsAlreadyExists(err) {
		return err
	}
	return k.refresh(ctx)
}

// refresh brings metadata and status up to date, each with one write at most.
func (k *Kubelet) refresh(ctx context.Context) error {
	nodes := k.writer().CoreV1().Nodes()
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		node, err := nodes.Get(ctx, k.config.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if err := k.describe(node); err != nil {
			return err
		}
		k.markVoter(ctx, node)
		if node, err = nodes.Update(ctx, node, metav1.UpdateOptions{}); err != nil {
			return err
		}
		k.report(ctx, node)
		_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
		return err
	})
}

// markVoter gives the etcd role to voting members only.
func (k *Kubelet) markVoter(ctx context.Context, node *corev1.Node) {
	if k.config.Voter == nil {
		return
	}
	voter, err := k.config.Voter(ctx)
	switch {
	case err != nil:
	case voter:
		node.Labels[labelEtcd] = "true"
	default:
		delete(node.Labels, labelEtcd)
	}
}

// keepStatus reports at intervals, and sooner when something has changed: the
// vote, the network, or a Node that somebody deleted, which K3s's kubelet
// registers anew only when it restarts and the stand-in likewise leaves alone.
func (k *Kubelet) keepStatus(ctx context.Context) {
	check := time.NewTicker(checkInterval)
	defer check.Stop()
	var last state
	var lastAt time.Time
	for {
		now := k.observe(ctx)
		if now != last || time.Since(lastAt) > statusInterval {
			err := k.refresh(ctx)
			if err == nil {
				last, lastAt = now, time.Now()
			} else if !apierrors.IsNotFound(err) {
				logrus.Debugf("Failed to update node status: %v", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-check.C:
		}
	}
}

// state is what decides whether a report is due.
type state struct {
	ready corev1.ConditionStatus
	voter bool
}

func (k *Kubelet) observe(ctx context.Context) state {
	s := state{ready: k.readiness().Status}
	if k.config.Voter != nil {
		s.voter, _ = k.config.Voter(ctx) // an unreachable member shows as no voter
	}
	return s
}

// listen opens a port of the kubelet.
func listen(ctx context.Context, address string, port int) (net.Listener, error) {
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", net.JoinHostPort(address, fmt.Sprint(port)))
}
