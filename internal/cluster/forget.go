package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// goneAsked is the time between two looks at a node that is to go.
const goneAsked = 500 * time.Millisecond

// passwordOf is the Secret by which K3s refuses another machine of a node's name.
func passwordOf(node string) string { return strings.ToLower(node) + ".node-password.k3s" }

// Knows reports whether the cluster holds anything of the node: its Node object or
// its password.
func (c *Client) Knows(ctx context.Context, node string) (bool, error) {
	_, err := c.Core.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = c.Core.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, passwordOf(node), metav1.GetOptions{})
	}
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", node, err)
	}
	return true, nil
}

// Address is the node's own in its network, empty where it has none or is not there.
func (c *Client) Address(ctx context.Context, node string) (string, error) {
	n, err := c.Core.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", node, err)
	}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			return a.Address, nil
		}
	}
	return "", nil
}

// Forget deletes the node and waits until it is gone: K3s holds it until it has
// taken the node's member out of the datastore. Then it deletes its password, so
// that a new machine may have the name.
func (c *Client) Forget(ctx context.Context, w step.Writer, node string) error {
	again := time.NewTicker(goneAsked)
	defer again.Stop()
	for asked := false; ; asked = true {
		var err error
		if asked {
			_, err = c.Core.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		} else {
			err = c.Core.CoreV1().Nodes().Delete(ctx, node, metav1.DeleteOptions{})
		}
		if apierrors.IsNotFound(err) {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", node, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: K3s has not let go of its node: %w", node, ctx.Err())
		case <-again.C:
		}
	}
	err := c.Core.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, passwordOf(node), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("%s: %w", passwordOf(node), err)
	}
	w.Report(report.Event{Kind: report.ChangeMade, Object: node, Message: "delete node"})
	return nil
}
