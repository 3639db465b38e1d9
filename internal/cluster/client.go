package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// answerPatience is how long one request to the API may take.
const answerPatience = 8 * time.Second

// Client speaks to the API through the first of its addresses that answered, with
// the rights of one kubeconfig. All requests share one connection.
type Client struct {
	URL     string
	config  *rest.Config
	http    *http.Client
	core    kubernetes.Interface
	dynamic dynamic.Interface
}

// Connect asks all addresses at once whether the API is ready there and returns a
// client for the first one where it is; without one, what each of them said.
func Connect(ctx context.Context, kubeconfig []byte, urls []string) (*Client, error) {
	if len(urls) == 0 {
		return nil, errors.New("api: no address to ask")
	}
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	type answer struct {
		client *Client
		err    error
	}
	answers := make(chan answer, len(urls))
	for _, url := range urls {
		go func() {
			c, err := newClient(kubeconfig, url)
			if err == nil {
				_, err = c.core.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
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

func newClient(kubeconfig []byte, url string) (*Client, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	config.Host, config.Timeout = url, answerPatience
	config.QPS = -1 // some dozens of requests at once, and then none
	config.WarningHandler = rest.NoWarnings{}
	c := &Client{URL: url, config: config}
	if c.http, err = rest.HTTPClientFor(config); err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	if c.core, err = kubernetes.NewForConfigAndClient(config, c.http); err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	if c.dynamic, err = dynamic.NewForConfigAndClient(config, c.http); err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	return c, nil
}
