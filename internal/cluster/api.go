package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Node is what the API says of a node.
type Node struct {
	Name    string   `json:"name"`
	Ready   bool     `json:"ready"`
	Reason  string   `json:"reason,omitempty"` // why it is not ready
	Roles   []string `json:"roles"`
	Version string   `json:"version"` // of the kubelet
	Voter   bool     `json:"voter"`   // K3s says its etcd member votes
	BootID  string   `json:"-"`       // of the machine when its kubelet started
}

// Nodes lists the nodes through the first of the API addresses that answers;
// all are asked at once. The kubeconfig gives the credentials.
func Nodes(ctx context.Context, kubeconfig []byte, urls []string) ([]Node, error) {
	if len(urls) == 0 {
		return nil, errors.New("api: no address to ask")
	}
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	type answer struct {
		nodes []Node
		err   error
	}
	answers := make(chan answer, len(urls))
	for _, url := range urls {
		go func() {
			nodes, err := list(ctx, kubeconfig, url)
			answers <- answer{nodes, err}
		}()
	}
	var errs []error
	for range urls {
		a := <-answers
		if a.err == nil {
			return a.nodes, nil
		}
		errs = append(errs, a.err)
	}
	return nil, errors.Join(errs...)
}

func list(ctx context.Context, kubeconfig []byte, url string) ([]Node, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	config.Host = url
	config.Timeout = 8 * time.Second
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	found, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	var nodes []Node
	for i := range found.Items {
		nodes = append(nodes, describe(&found.Items[i]))
	}
	return nodes, nil
}

func describe(n *corev1.Node) Node {
	out := Node{Name: n.Name, Version: n.Status.NodeInfo.KubeletVersion, BootID: n.Status.NodeInfo.BootID}
	for _, c := range n.Status.Conditions {
		switch c.Type {
		case corev1.NodeReady:
			out.Ready = c.Status == corev1.ConditionTrue
			if !out.Ready {
				out.Reason = c.Message
			}
		case "EtcdIsVoter":
			out.Voter = c.Status == corev1.ConditionTrue
		}
	}
	for label := range n.Labels {
		if role, ok := strings.CutPrefix(label, "node-role.kubernetes.io/"); ok {
			out.Roles = append(out.Roles, role)
		}
	}
	slices.Sort(out.Roles)
	return out
}
