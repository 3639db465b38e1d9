package kubelet

import (
	"context"
	"fmt"
	"os"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/component-helpers/apimachinery/lease"
	"k8s.io/utils/clock"
	"sigs.k8s.io/kwok/kustomize/stage/pod/fast"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	"sigs.k8s.io/kwok/pkg/apis/v1alpha1"
	"sigs.k8s.io/kwok/pkg/kwok/controllers"
	kwoklog "sigs.k8s.io/kwok/pkg/log"
	"sigs.k8s.io/yaml"
)

const (
	// leaseSeconds and leaseRenewal are a kubelet's: the node controller gives
	// a node up some time after it stopped renewing.
	leaseSeconds = 40
	leaseRenewal = 10 * time.Second
)

// runPods starts kwok for this one node: pods bound to it become ready (those
// of jobs complete), and go when they are deleted. The Node object is not
// kwok's business, hence no stages for it, and neither is the lease: a node's
// credentials do not let kwok list leases.
func (k *Kubelet) runPods(ctx context.Context) error {
	pods, err := podStages()
	if err != nil {
		return err
	}
	dynamicClient, err := dynamic.NewForConfig(k.config.Client)
	if err != nil {
		return err
	}
	controller, err := controllers.NewController(controllers.Config{
		Clock:                     clock.RealClock{},
		DynamicClient:             dynamicClient,
		RESTClient:                k.kube.Discovery().RESTClient(),
		TypedClient:               k.kube,
		ManageSingleNode:          k.config.Name,
		CIDR:                      k.config.Cluster.ClusterCIDR,
		NodeIP:                    k.config.IP,
		NodeName:                  k.config.Name,
		NodePort:                  Port,
		PodPlayStageParallelism:   2,
		NodePlayStageParallelism:  1,
		PodsOnNodeSyncParallelism: 1,
		ID:                        k.config.Name,
		LocalStages: map[internalversion.StageResourceRef][]*internalversion.Stage{
			{APIGroup: "v1", Kind: "Pod"}:  pods,
			{APIGroup: "v1", Kind: "Node"}: nil,
		},
	})
	if err != nil {
		return err
	}
	quiet := kwoklog.NewLogger(os.Stderr, kwoklog.LevelError)
	return controller.Start(kwoklog.NewContext(ctx, quiet))
}

func podStages() ([]*internalversion.Stage, error) {
	var stages []*internalversion.Stage
	for _, text := range []string{fast.DefaultPodReady, fast.DefaultPodComplete, fast.DefaultPodDelete} {
		var external v1alpha1.Stage
		if err := yaml.Unmarshal([]byte(text), &external); err != nil {
			return nil, fmt.Errorf("pod stage: %w", err)
		}
		stage, err := internalversion.ConvertToInternalStage(&external)
		if err != nil {
			return nil, fmt.Errorf("pod stage %s: %w", external.Name, err)
		}
		stages = append(stages, stage)
	}
	return stages, nil
}

// keepLease renews the node's lease as a kubelet does, with the Node as owner.
func (k *Kubelet) keepLease(ctx context.Context) {
	own := func(l *coordinationv1.Lease) error {
		if len(l.OwnerReferences) > 0 {
			return nil
		}
		node, err := k.kube.CoreV1().Nodes().Get(ctx, k.config.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		l.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: corev1.SchemeGroupVersion.String(), Kind: "Node", Name: node.Name, UID: node.UID,
		}}
		return nil
	}
	lease.NewController(clock.RealClock{}, k.kube, k.config.Name, leaseSeconds, nil, leaseRenewal,
		k.config.Name, corev1.NamespaceNodeLease, own).Run(ctx)
}
