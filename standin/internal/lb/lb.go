// Package lb is the TCP load balancer through which an agent reaches the API:
// one local address that stays the same while servers come and go.
package lb

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

const dialTimeout = 3 * time.Second

// Balancer forwards connections to the first server that takes them. It stays
// with that one until it fails, so that a node's watches are not scattered.
type Balancer struct {
	mu      sync.Mutex
	servers []string
	conns   map[net.Conn]string
}

// New returns a balancer over servers ("host:port").
func New(servers ...string) *Balancer {
	return &Balancer{servers: servers, conns: map[net.Conn]string{}}
}

// Servers returns the current servers, the preferred one first.
func (b *Balancer) Servers() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.servers)
}

// Set replaces the servers and reports whether that changed anything. The order
// of those that stay is kept; connections to those that left are cut.
func (b *Balancer) Set(servers []string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(servers) == 0 {
		return false
	}
	next := slices.DeleteFunc(slices.Clone(b.servers), func(s string) bool { return !slices.Contains(servers, s) })
	for _, s := range servers {
		if !slices.Contains(next, s) {
			next = append(next, s)
		}
	}
	if slices.Equal(next, b.servers) {
		return false
	}
	b.servers = next
	for conn, server := range b.conns {
		if !slices.Contains(next, server) {
			_ = conn.Close() // its owner notices
		}
	}
	return true
}

// Serve accepts connections until ctx is done.
func (b *Balancer) Serve(ctx context.Context, listener net.Listener) {
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			logrus.Warnf("Load balancer failed to accept: %v", err)
			continue
		}
		go b.forward(ctx, conn)
	}
}

func (b *Balancer) forward(ctx context.Context, client net.Conn) {
	defer client.Close()
	server, name := b.dial(ctx)
	if server == nil {
		return
	}
	defer server.Close()
	b.track(server, name, true)
	defer b.track(server, name, false)
	done := make(chan struct{}, 2)
	pipe := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // either end closing is how it ends
		done <- struct{}{}
	}
	go pipe(server, client)
	go pipe(client, server)
	select {
	case <-done:
	case <-ctx.Done():
	}
}

func (b *Balancer) track(conn net.Conn, server string, open bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if open {
		b.conns[conn] = server
	} else {
		delete(b.conns, conn)
	}
}

func (b *Balancer) dial(ctx context.Context) (net.Conn, string) {
	dialer := net.Dialer{Timeout: dialTimeout}
	for _, server := range b.Servers() {
		conn, err := dialer.DialContext(ctx, "tcp", server)
		if err == nil {
			return conn, server
		}
		logrus.Debugf("Load balancer cannot reach %s: %v", server, err)
		b.demote(server)
	}
	return nil, ""
}

// demote moves a server that does not answer to the end of the line.
func (b *Balancer) demote(server string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.servers, server); i >= 0 {
		b.servers = append(slices.Delete(b.servers, i, i+1), server)
	}
}
