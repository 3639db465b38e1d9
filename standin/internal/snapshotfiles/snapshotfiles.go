// Package snapshotfiles lists a server's datastore snapshots in the cluster, as
// ETCDSnapshotFile objects.
package snapshotfiles

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/k3lab/k3lab/standin/internal/datastore"
)

const (
	labelNode           = "etcd.k3s.cattle.io/snapshot-storage-node"
	annotationTimestamp = "etcd.k3s.cattle.io/local-snapshots-timestamp"
)

var (
	files = schema.GroupVersionResource{Group: "k3s.cattle.io", Version: "v1", Resource: "etcdsnapshotfiles"}
	nodes = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
)

// Files writes one server's objects.
type Files struct {
	client dynamic.Interface
	node   string
}

// New returns the writer for a node.
func New(config *rest.Config, node string) (*Files, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Files{client: client, node: node}, nil
}

// Sync creates objects for files that have none and deletes those whose file
// is gone.
func (f *Files) Sync(ctx context.Context, dir string) error {
	// Objects first: a snapshot saved meanwhile by somebody else then has a file
	// without an object, which is made, and never an object that looks stale.
	listed, err := f.client.Resource(files).List(ctx, metav1.ListOptions{LabelSelector: labelNode + "=" + f.node})
	if err != nil {
		return err
	}
	snapshots, err := datastore.List(dir)
	if err != nil {
		return err
	}
	stale := map[string]bool{}
	for _, object := range listed.Items {
		stale[object.GetName()] = true
	}
	for _, snapshot := range snapshots {
		object := f.object(snapshot)
		if stale[object.GetName()] {
			delete(stale, object.GetName())
			continue
		}
		_, err := f.client.Resource(files).Create(ctx, object, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	for name := range stale {
		err := f.client.Resource(files).Delete(ctx, name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return f.stamp(ctx)
}

// stamp notes on the Node when its snapshots were last looked at. A node that
// is not registered yet has nothing to note it on.
func (f *Files) stamp(ctx context.Context) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"annotations": map[string]string{annotationTimestamp: time.Now().UTC().Format(time.RFC3339)},
	}})
	if err != nil {
		return err
	}
	_, err = f.client.Resource(nodes).Patch(ctx, f.node, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (f *Files) object(s datastore.Snapshot) *unstructured.Unstructured {
	sum := sha256.Sum256([]byte(f.node + s.Path))
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "k3s.cattle.io/v1",
		"kind":       "ETCDSnapshotFile",
		"metadata": map[string]any{
			"name":   fmt.Sprintf("local-%s-%s", s.Name, hex.EncodeToString(sum[:3])),
			"labels": map[string]any{labelNode: f.node},
		},
		"spec": map[string]any{
			"snapshotName": s.Name, "nodeName": f.node, "location": s.Location(),
		},
		"status": map[string]any{
			"readyToUse":   true,
			"size":         resource.NewQuantity(s.Size, resource.DecimalSI).String(),
			"creationTime": s.Created.UTC().Format(time.RFC3339),
		},
	}}
}
