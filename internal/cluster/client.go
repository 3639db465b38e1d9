package cluster

import (
	"context"

	"github.com/k3lab/k3lab/internal/kube"
)

// Client speaks to the API with the rights of one kubeconfig.
type Client struct{ *kube.Client }

// Connect returns a client for the first of the addresses where the API is ready.
func Connect(ctx context.Context, kubeconfig []byte, urls []string) (*Client, error) {
	c, err := kube.Connect(ctx, kubeconfig, urls)
	if err != nil {
		return nil, err
	}
	return &Client{c}, nil
}
