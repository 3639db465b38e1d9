package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Known is a node as its cluster knows it, for whom no settings name it yet.
type Known struct {
	Name    string
	Address netip.Addr // its first internal one; zero where it has none
	Server  bool
	Ready   bool
}

// Known lists all nodes, in the order of their names.
func (c *Client) Known(ctx context.Context) ([]Known, error) {
	list, err := c.Core.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("nodes: %w", err)
	}
	var out []Known
	for _, n := range list.Items {
		node := describe(&n)
		k := Known{Name: n.Name, Server: slices.Contains(node.Roles, "control-plane"), Ready: node.Ready}
		for _, a := range n.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP && !k.Address.IsValid() {
				k.Address = ip
			}
		}
		out = append(out, k)
	}
	return out, nil
}
