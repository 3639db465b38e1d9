package apps

import (
	"context"
	"io"
	"net/http"
	"sync"

	"k8s.io/client-go/rest"
)

// gated is a way to the API that is open as long as a context is. Helm's actions
// go on when they are told to stop, some in goroutines nobody waits for; behind a
// closed gate none of them reaches the API any more.
func gated(ctx context.Context, c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	c.Timeout = 0 // the gate ends requests, and watches may last
	c.Wrap(func(next http.RoundTripper) http.RoundTripper { return gate{ctx, next} })
	return c
}

type gate struct {
	ctx  context.Context
	next http.RoundTripper
}

func (g gate) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := g.ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(req.Context())
	stop := context.AfterFunc(g.ctx, cancel)
	resp, err := g.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		stop()
		cancel()
		if g.ctx.Err() != nil {
			err = g.ctx.Err()
		}
		return nil, err
	}
	resp.Body = &gatedBody{ReadCloser: resp.Body, end: sync.OnceFunc(func() { stop(); cancel() })}
	return resp, nil
}

// gatedBody ends its request when it is closed.
type gatedBody struct {
	io.ReadCloser
	end func()
}

func (b *gatedBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}
