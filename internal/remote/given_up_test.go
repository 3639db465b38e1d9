package remote_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/k3lab/k3lab/internal/remote"
	"github.com/k3lab/k3lab/internal/remote/remotetest"
)

// lastMoment cancels when the handshake is over, and only then.
type lastMoment struct {
	net.Conn
	cancel context.CancelFunc
	closed chan struct{}
}

func (c lastMoment) SetDeadline(at time.Time) error {
	if at.IsZero() {
		c.cancel()
		<-c.closed
		return nil
	}
	return c.Conn.SetDeadline(at)
}

func (c lastMoment) Close() error {
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	return c.Conn.Close()
}

// TestGivenUpAtTheLastMoment: a connection that was made and closed in the same
// moment is an error, not a connection that is lost for whoever shares it.
func TestGivenUpAtTheLastMoment(t *testing.T) {
	server := remotetest.NewServer(t)
	ctx, cancel := context.WithCancel(soon(t, 20*time.Second))
	o := server.Options(filepath.Join(t.TempDir(), "known"))
	o.Via = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return lastMoment{conn, cancel, make(chan struct{})}, err
	}
	if c, err := remote.Dial(ctx, o); c != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("connection %v, error %v; want none, and that it was given up", c, err)
	}
}
