package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"

	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// CordonedBy is the annotation of a node that k3lab has cordoned; its value is the
// operation that did. Only such a node does k3lab uncordon: what a person has
// cordoned stays so.
const CordonedBy = "k3lab.io/cordoned-by"

// Cordoned tells whether no pod is scheduled to the node, and which operation of
// k3lab's has seen to that; empty where it was somebody else.
func (c *Client) Cordoned(ctx context.Context, node string) (cordoned bool, by string, err error) {
	n, err := c.Core.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return false, "", fmt.Errorf("%s: %w", node, err)
	}
	if !n.Spec.Unschedulable {
		return false, "", nil
	}
	return true, n.Annotations[CordonedBy], nil
}

// Elsewhere reports whether a node other than this one takes pods.
func (c *Client) Elsewhere(ctx context.Context, node string) (bool, error) {
	nodes, err := c.Core.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, fmt.Errorf("nodes: %w", err)
	}
	return slices.ContainsFunc(nodes.Items, func(n corev1.Node) bool {
		return n.Name != node && !n.Spec.Unschedulable && describe(&n).Ready
	}), nil
}

// Cordon has no more pods scheduled to the node. One that is cordoned already is
// left as it is.
func (c *Client) Cordon(ctx context.Context, w step.Writer, node, operation string) error {
	return c.patchNode(ctx, node, func(n *corev1.Node) map[string]any {
		if n.Spec.Unschedulable {
			return nil
		}
		w.Report(report.Event{Kind: report.ChangeMade, Object: node, Message: "cordon node"})
		return map[string]any{
			"metadata": map[string]any{"annotations": map[string]any{CordonedBy: operation}},
			"spec":     map[string]any{"unschedulable": true},
		}
	})
}

// Uncordon has pods scheduled to the node again, if Cordon has kept them away.
func (c *Client) Uncordon(ctx context.Context, w step.Writer, node string) error {
	return c.patchNode(ctx, node, func(n *corev1.Node) map[string]any {
		_, ours := n.Annotations[CordonedBy]
		if !ours {
			return nil
		}
		patch := map[string]any{"metadata": map[string]any{"annotations": map[string]any{CordonedBy: nil}}}
		if n.Spec.Unschedulable {
			patch["spec"] = map[string]any{"unschedulable": nil}
			w.Report(report.Event{Kind: report.ChangeMade, Object: node, Message: "uncordon node"})
		}
		return patch
	})
}

// patchNode changes a node, and looks anew where somebody else was faster. No
// patch: nothing to change.
func (c *Client) patchNode(ctx context.Context, node string, patch func(*corev1.Node) map[string]any) error {
	nodes := c.Core.CoreV1().Nodes()
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		n, err := nodes.Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		p := patch(n)
		if p == nil {
			return nil
		}
		meta, ok := p["metadata"].(map[string]any)
		if !ok {
			return fmt.Errorf("patch without metadata")
		}
		meta["resourceVersion"] = n.ResourceVersion
		text, err := json.Marshal(p)
		if err != nil {
			return err
		}
		_, err = nodes.Patch(ctx, node, types.MergePatchType, text, metav1.PatchOptions{FieldManager: FieldManager})
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", node, err)
	}
	return nil
}
