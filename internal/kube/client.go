// Package kube speaks to the Kubernetes API the way k3lab changes anything there:
// by server-side apply, shown before by the same apply that is not persisted.
package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// AnswerPatience is how long one request to the API may take.
const AnswerPatience = 8 * time.Second

// Client speaks to the API through the first of its addresses that answered, with
// the rights of one kubeconfig. All requests share one connection.
type Client struct {
	URL     string
	Config  *rest.Config
	HTTP    *http.Client
	Core    kubernetes.Interface
	Dynamic dynamic.Interface
}

// Connect asks all addresses at once whether the API is ready there and returns a
// client for the first one where it is; without one, what each of them said.
func Connect(ctx context.Context, kubeconfig []byte, urls []string) (*Client, error) {
	if len(urls) == 0 {
		return nil, errors.New("api: no address to ask")
	}
	ctx, cancel := context.WithTimeout(ctx, AnswerPatience)
	defer cancel()
	type answer struct {
		client *Client
		err    error
	}
	answers := make(chan answer, len(urls))
	for _, url := range urls {
		go func() {
			c, err := New(kubeconfig, url)
			if err == nil {
				_, err = c.Core.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
			}
			answers <- answer{c, err}
		}()
	}
	var errs []error
	for range urls {
		a := <-answers
		if a.err == nil {
			return a.client, nil
		}
		errs = append(errs, a.err)
	}
	return nil, errors.Join(errs...)
}

// New returns a client for one address; nothing is asked yet.
func New(kubeconfig []byte, url string) (*Client, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	config.Host, config.Timeout = url, AnswerPatience
	config.QPS = -1 // some dozens of requests at once, and then none
	config.WarningHandler = rest.NoWarnings{}
	c := &Client{URL: url, Config: config}
	if c.HTTP, err = rest.HTTPClientFor(config); err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	if c.Core, err = kubernetes.NewForConfigAndClient(config, c.HTTP); err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	if c.Dynamic, err = dynamic.NewForConfigAndClient(config, c.HTTP); err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	return c, nil
}

// Version is what the API says of itself.
func (c *Client) Version(ctx context.Context) (*version.Info, error) {
	var out version.Info
	raw, err := c.Core.Discovery().RESTClient().Get().AbsPath("/version").DoRaw(ctx)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("api: version: %w", err)
	}
	return &out, nil
}
