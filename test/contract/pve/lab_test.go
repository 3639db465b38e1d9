package pve

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/k3lab/k3lab/internal/sandbox/pveapi"
)

// cluster is a simulated cluster under test.
type cluster struct {
	server *pveapi.Server
	url    string
	caFile string
	token  pveapi.Token
}

// tokenText is the token as clients are given it.
func (c *cluster) tokenText() string { return c.token.Name() + "=" + c.token.Secret }

// newCluster starts a cluster of three hypervisors without machines, for as
// long as the test runs.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	token := pveapi.Token{User: "root@pam", ID: "k3lab", Secret: "7b5c4a3e-0000-4000-8000-000000000001"}
	s, err := pveapi.Open(pveapi.Options{
		StateDir:    t.TempDir(),
		Hypervisors: []pveapi.Hypervisor{{Name: "pve1"}, {Name: "pve2"}, {Name: "pve3"}},
		Token:       token,
		Passwords:   map[string]string{"root@pam": "hunter2"},
		Log:         t.Logf,
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return &cluster{server: s, url: "https://" + l.Addr().String(), caFile: s.CAFile(), token: token}
}

// within bounds a test's client calls.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
