package remote

import (
	"context"
	"net"
	"strings"
	"time"
)

// Options say how a machine is reached over SSH.
type Options struct {
	Machine    string // its name, for messages
	Address    string // IP address or name, with or without a port
	User       string
	KeyFile    string // private key; the agent of SSH_AUTH_SOCK is asked too
	KnownHosts string // file that host keys are pinned in at first contact

	// Strict refuses a host key that is not pinned yet, with an *UnknownKeyError,
	// unless one of the files of Known has it.
	Strict bool
	// Known are further files of host keys, as ssh has them. They are only read; a
	// file that is not there holds none.
	Known []string
	// Alias is another name under which Known may have the machine.
	Alias string

	// ConnectTimeout bounds one TCP connection attempt, default 3 s; short, so
	// that a machine that boots is found soon.
	ConnectTimeout time.Duration
	// KeepAlive is how often an idle link is tried, default 5 s. One that does not
	// answer for twice as long is given up.
	KeepAlive time.Duration
	// AuthGrace is how long refused keys are tried again: a machine may answer
	// before its first boot has put the key there. Default: not at all.
	AuthGrace time.Duration
	// OnWait is called when what is waited for changes. May be nil.
	OnWait func(why string)
	// Via makes the TCP connection. Default: from this computer.
	Via func(ctx context.Context, network, address string) (net.Conn, error)
}

func (o Options) withDefaults() Options {
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = 3 * time.Second
	}
	if o.KeepAlive == 0 {
		o.KeepAlive = 5 * time.Second
	}
	if o.OnWait == nil {
		o.OnWait = func(string) {}
	}
	if o.Via == nil {
		o.Via = new(net.Dialer).DialContext
	}
	if o.Machine == "" {
		o.Machine = o.Address
	}
	o.Address = withPort(o.Address)
	return o
}

func withPort(address string) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(strings.Trim(address, "[]"), "22")
}
