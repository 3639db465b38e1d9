package fleet

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strconv"
	"sync"

	"github.com/k3lab/k3lab/internal/remote"
)

// Options say how machines are reached and what they are.
type Options struct {
	// Dial connects to a machine.
	Dial func(ctx context.Context, machine string) (remote.Runner, error)
	// Arch returns a machine's architecture as Go names it, "" where it must be
	// asked. May be nil.
	Arch func(machine string) string
	// Converger returns the converger for an architecture. Default: the built-in one.
	Converger func(arch string) (Binary, error)
}

// Fleet is the machines of one operation. Safe for concurrent use.
type Fleet struct {
	options  Options
	mu       sync.Mutex
	machines map[string]*machine
	closed   bool
}

// machine is one machine. Its lock is held while it is dialled, so that whoever
// needs it meanwhile waits for that connection.
type machine struct {
	name   string
	dial   chan struct{} // held to connect; a channel, so that waiting obeys a context
	runner remote.Runner
	arch   string

	ship    chan struct{} // held to copy the converger there
	shipped remote.Runner // the connection over which it was copied
}

// New returns a fleet; nothing is connected yet.
func New(o Options) *Fleet {
	if o.Converger == nil {
		o.Converger = Converger
	}
	if o.Arch == nil {
		o.Arch = func(string) string { return "" }
	}
	return &Fleet{options: o, machines: map[string]*machine{}}
}

func (f *Fleet) machine(name string) (*machine, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, net.ErrClosed
	}
	m, ok := f.machines[name]
	if !ok {
		m = &machine{name: name, dial: make(chan struct{}, 1), ship: make(chan struct{}, 1), arch: f.options.Arch(name)}
		f.machines[name] = m
	}
	return m, nil
}

// Runner returns the connection to a machine and makes it where there is none, or
// where the one there was has ended. It belongs to the fleet.
func (f *Fleet) Runner(ctx context.Context, machine string) (remote.Runner, error) {
	m, err := f.machine(machine)
	if err != nil {
		return nil, err
	}
	if err := hold(ctx, m.dial); err != nil {
		return nil, err
	}
	defer func() { <-m.dial }()
	if m.runner != nil && !lost(m.runner) {
		return m.runner, nil
	}
	r, err := f.options.Dial(ctx, machine)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errors.Join(net.ErrClosed, r.Close())
	}
	m.runner = r
	return r, nil
}

func hold(ctx context.Context, lock chan struct{}) error {
	select {
	case lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lost reports whether a connection that can tell has ended.
func lost(r remote.Runner) bool {
	l, ok := r.(interface{ Lost() <-chan struct{} })
	if !ok {
		return false
	}
	select {
	case <-l.Lost():
		return true
	default:
		return false
	}
}

// Close ends all connections.
func (f *Fleet) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, m := range f.machines {
		if m.runner != nil {
			m.runner.Close() //nolint:errcheck // one that is lost already cannot be ended better
		}
	}
	return nil
}

// Dial connects from the machine itself, for services on its loopback.
func (f *Fleet) Dial(ctx context.Context, machine, network, address string) (net.Conn, error) {
	r, err := f.Runner(ctx, machine)
	if err != nil {
		return nil, err
	}
	return r.Dial(ctx, network, address)
}

// Output runs a command as root and returns what it wrote to stdout.
func (f *Fleet) Output(ctx context.Context, machine string, args ...string) ([]byte, error) {
	r, err := f.Runner(ctx, machine)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := r.Run(ctx, remote.Cmd{Args: args, Root: true, Stdout: &out}); err != nil {
		return nil, Named(machine, err)
	}
	return out.Bytes(), nil
}

// ReadFile reads a file as root.
func (f *Fleet) ReadFile(ctx context.Context, machine, path string) ([]byte, error) {
	return f.Output(ctx, machine, "cat", "--", path)
}

// Journal returns the last lines a unit has logged.
func (f *Fleet) Journal(ctx context.Context, machine, unit string, lines int) (string, error) {
	out, err := f.Output(ctx, machine, "journalctl", "--no-pager", "--quiet", "--output=cat", "--lines="+strconv.Itoa(lines), "--unit="+unit)
	return string(out), err
}
