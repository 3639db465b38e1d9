package kube

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/client-go/rest"
)

// TestDiscoverEndsWithItsContext: the API takes the request and never answers.
func TestDiscoverEndsWithItsContext(t *testing.T) {
	asked := make(chan struct{}, 8)
	hang := make(chan struct{})
	api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-hang:
		}
	}))
	defer api.Close()
	defer close(hang)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	c := &Client{Config: &rest.Config{Host: api.URL}, HTTP: api.Client()}
	if _, err := c.Discover(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was told to end", err)
	}
}
