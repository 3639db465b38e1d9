// Package remotetest helps to test what reaches machines: a strict fake, an SSH
// server on loopback, and the conformance suite every remote.Runner passes.
package remotetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/k3lab/k3lab/internal/remote"
)

// Call is one command as the fake got it.
type Call struct {
	Args  []string
	Root  bool
	Stdin string
}

// Program answers a call and returns its exit code.
type Program func(ctx context.Context, c Call, stdout, stderr io.Writer) int

// File is what was Put.
type File struct {
	Content string
	Mode    fs.FileMode
}

// Fake is a machine that knows only the programs it is told. A command or
// connection it does not know fails the test. Safe for concurrent use.
type Fake struct {
	t        testing.TB
	mu       sync.Mutex
	programs []program
	dials    map[string]func(context.Context) (net.Conn, error)
	files    map[string]File
	calls    []Call
	closed   bool
}

type program struct {
	prefix []string
	run    Program
}

// NewFake returns a machine that knows nothing yet.
func NewFake(t testing.TB) *Fake {
	return &Fake{t: t, dials: map[string]func(context.Context) (net.Conn, error){}, files: map[string]File{}}
}

// Handle has p answer commands that begin with these arguments. The longest
// match wins; of equal ones the latest.
func (f *Fake) Handle(p Program, prefix ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.programs = append(f.programs, program{prefix, p})
}

// Answer has commands that begin with these arguments write to stdout and end with 0.
func (f *Fake) Answer(stdout string, prefix ...string) {
	f.Handle(func(_ context.Context, _ Call, out, _ io.Writer) int {
		io.WriteString(out, stdout) //nolint:errcheck // the caller's writer is its own concern
		return 0
	}, prefix...)
}

// HandleDial has connections to the address made by d.
func (f *Fake) HandleDial(network, address string, d func(context.Context) (net.Conn, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials[network+" "+address] = d
}

// Calls returns the commands run so far, in order.
func (f *Fake) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// File returns what was Put at a path.
func (f *Fake) File(path string) (File, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, ok := f.files[path]
	return file, ok
}

// Run implements remote.Runner.
func (f *Fake) Run(ctx context.Context, cmd remote.Cmd) error {
	if err := f.begin(ctx); err != nil {
		return err
	}
	call := Call{Args: slices.Clone(cmd.Args), Root: cmd.Root}
	if cmd.Stdin != nil {
		content, err := io.ReadAll(cmd.Stdin)
		if err != nil {
			return fmt.Errorf("stdin: %w", err)
		}
		call.Stdin = string(content)
	}
	p, ok := f.find(call)
	if !ok {
		f.t.Errorf("the test expects no command %s", remote.Quote(cmd.Args...))
		return fmt.Errorf("unexpected command %q", cmd.Args)
	}
	var stderr bytes.Buffer
	stdout := cmd.Stdout
	if stdout == nil {
		stdout = io.Discard
	}
	code := p(ctx, call, stdout, &stderr)
	if cmd.Stderr != nil {
		if _, err := cmd.Stderr.Write(stderr.Bytes()); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case code != 0:
		return &remote.ExitError{Args: cmd.Args, Code: code, Stderr: stderr.String()}
	}
	return nil
}

func (f *Fake) find(call Call) (Program, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
	var best *program
	for i, p := range f.programs {
		if len(p.prefix) <= len(call.Args) && slices.Equal(p.prefix, call.Args[:len(p.prefix)]) &&
			(best == nil || len(p.prefix) >= len(best.prefix)) {
			best = &f.programs[i]
		}
	}
	if best == nil {
		return nil, false
	}
	return best.run, true
}

// Put implements remote.Runner.
func (f *Fake) Put(ctx context.Context, path string, content io.Reader, size int64, mode fs.FileMode) error {
	if err := f.begin(ctx); err != nil {
		return err
	}
	text, err := io.ReadAll(content)
	if err != nil {
		return fmt.Errorf("stdin: %w", err)
	}
	if int64(len(text)) != size {
		return &remote.ExitError{Args: []string{"write", path}, Code: 1, Stderr: fmt.Sprintf("got %d of %d bytes\n", len(text), size)}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for other := range f.files {
		if strings.HasPrefix(other, path+"/") {
			return &remote.ExitError{Args: []string{"write", path}, Code: 1, Stderr: path + " is a directory\n"}
		}
	}
	f.files[path] = File{string(text), mode}
	return nil
}

// Dial implements remote.Runner.
func (f *Fake) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := f.begin(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	d, ok := f.dials[network+" "+address]
	f.mu.Unlock()
	if !ok {
		f.t.Errorf("the test expects no connection to %s %s", network, address)
		return nil, errors.New("connection refused")
	}
	return d(ctx)
}

// Close implements remote.Runner.
func (f *Fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

func (f *Fake) begin(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return net.ErrClosed
	}
	return context.Cause(ctx)
}
