package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/k3lab/k3lab/internal/fault"
)

// sessionsAtOnce leaves two of the ten that sshd allows on one connection for
// ending commands.
const sessionsAtOnce = 8

// Client is a Runner over SSH. Safe for concurrent use.
type Client struct {
	machine  string
	user     string
	conn     *ssh.Client
	sessions chan struct{}
	lost     chan struct{} // closed when the connection has ended

	mu  sync.Mutex
	why error // why the connection ended
}

func newClient(conn *ssh.Client, o Options) *Client {
	c := &Client{
		machine: o.Machine, user: o.User, conn: conn,
		sessions: make(chan struct{}, sessionsAtOnce), lost: make(chan struct{}),
	}
	go func() {
		c.end(conn.Wait())
		close(c.lost)
	}()
	go c.keepAlive(o.KeepAlive)
	return c
}

// keepAlive ends a connection that no longer answers, so that whoever waits on
// it learns that the machine is gone.
func (c *Client) keepAlive(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-c.lost:
			return
		case <-tick.C:
		}
		giveUp := time.AfterFunc(2*every, func() {
			c.end(fmt.Errorf("no answer for %s", 2*every))
			c.conn.Close()
		})
		_, _, err := c.conn.SendRequest("keepalive@openssh.com", true, nil)
		giveUp.Stop()
		if err != nil {
			return // the connection has ended
		}
	}
}

// end remembers the first reason for which the connection ended.
func (c *Client) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil {
		c.why = err
	}
}

// Lost is closed when the connection has ended, for whatever reason.
func (c *Client) Lost() <-chan struct{} { return c.lost }

// ErrLost says that a connection ended while it was in use: the machine went
// off, rebooted, or the network failed.
var ErrLost = errors.New("connection lost")

// broken explains a failure of the connection itself.
func (c *Client) broken(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why != nil {
		err = c.why
	}
	return fault.New(fault.Unreachable, c.machine, "k3lab status", "ssh: %w: %w", ErrLost, err)
}

// Dial connects from the machine.
func (c *Client) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.conn.DialContext(ctx, network, address)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%s: %s from there: %w", c.machine, address, err)
	}
	return conn, nil
}

// Put implements Runner.
func (c *Client) Put(ctx context.Context, path string, content io.Reader, size int64, mode fs.FileMode) error {
	return put(ctx, c, path, content, size, mode)
}

// Close ends the connection and with it every command that still runs.
func (c *Client) Close() error {
	c.end(net.ErrClosed)
	err := c.conn.Close()
	<-c.lost
	return err
}
