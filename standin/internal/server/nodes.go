package server

import (
	"context"
	"slices"
	"time"

	"github.com/sirupsen/logrus"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/k3lab/k3lab/standin/internal/datastore"
	"github.com/k3lab/k3lab/standin/internal/kubelet"
	"github.com/k3lab/k3lab/standin/internal/supervisor"
)

// Annotations by which a datastore member can be taken out of the cluster
// while its Node stays.
const (
	annotationRemove  = "etcd.k3s.cattle.io/remove"
	annotationRemoved = "etcd.k3s.cattle.io/removed-node-name"
	annotationMember  = "etcd.k3s.cattle.io/node-name"
)

const nodeRetry = 2 * time.Second

// tendNodes does what K3s's controllers do when a Node is deleted: forget its
// password, and take its datastore member out of the cluster. Every server
// watches; only the one that leads the datastore acts.
func tendNodes(ctx context.Context, kube kubernetes.Interface, etcd *clientv3.Client) error {
	queue := workqueue.NewTyped[string]()
	factory := informers.NewSharedInformerFactory(kube, 0)
	nodes := factory.Core().V1().Nodes()
	enqueue := func(object any) {
		if node, ok := object.(*corev1.Node); ok && needsTending(node) {
			queue.Add(node.Name)
		}
	}
	if _, err := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, object any) { enqueue(object) },
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	context.AfterFunc(ctx, queue.ShutDown)
	for {
		name, stopped := queue.Get()
		if stopped {
			return ctx.Err()
		}
		node, err := nodes.Lister().Get(name)
		if err == nil && needsTending(node) {
			if err := tendNode(ctx, kube, etcd, node.DeepCopy()); err != nil {
				logrus.Debugf("Failed to tend node %s, will retry: %v", name, err)
			}
			// Also after success: it comes back as an update unless
			// another server leads now.
			time.AfterFunc(nodeRetry, func() { queue.Add(name) })
		}
		queue.Done(name)
	}
}

func needsTending(node *corev1.Node) bool {
	leaving := node.DeletionTimestamp != nil &&
		(slices.Contains(node.Finalizers, kubelet.FinalizerEtcd) || slices.Contains(node.Finalizers, kubelet.FinalizerNode))
	return leaving || (node.Annotations[annotationRemove] == "true" && node.Annotations[annotationMember] != "")
}

func tendNode(ctx context.Context, kube kubernetes.Interface, etcd *clientv3.Client, node *corev1.Node) error {
	leads, err := datastore.Leads(ctx, etcd)
	if err != nil || !leads {
		return err
	}
	if member := node.Annotations[annotationMember]; member != "" {
		if err := datastore.RemoveMember(ctx, etcd, member); err != nil {
			return err
		}
		delete(node.Annotations, annotationMember)
		node.Annotations[annotationRemoved] = member
		delete(node.Annotations, annotationRemove)
	}
	if node.DeletionTimestamp != nil {
		err := kube.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, supervisor.NodePasswordSecret(node.Name), metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		node.Finalizers = slices.DeleteFunc(node.Finalizers, func(f string) bool {
			return f == kubelet.FinalizerEtcd || f == kubelet.FinalizerNode
		})
	}
	_, err = kube.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
	return err
}
