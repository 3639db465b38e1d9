package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Local is a Runner of this computer. Safe for concurrent use.
type Local struct{ closed atomic.Bool }

// NewLocal returns a Runner of this computer.
func NewLocal() *Local { return &Local{} }

// Run implements Runner. When ctx ends first, the command and what it started
// are ended too.
func (l *Local) Run(ctx context.Context, cmd Cmd) error {
	if l.closed.Load() {
		return net.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	args := cmd.Args
	if cmd.Root && os.Geteuid() != 0 {
		args = append([]string{"sudo", "-n", "--"}, args...)
	}
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	t := &tail{}
	stdin, err := c.StdinPipe()
	if err != nil {
		return err
	}
	c.Stdout, c.Stderr = cmd.Stdout, t
	if cmd.Stderr != nil {
		c.Stderr = io.MultiWriter(t, cmd.Stderr)
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
	c.WaitDelay = termPatience
	if err := c.Start(); err != nil {
		return l.outcome(cmd, t, err)
	}
	go func() {
		if err := feed(stdin, cmd.Stdin); err != nil && !errors.Is(err, fs.ErrClosed) {
			stop(fmt.Errorf("stdin: %w", err))
		}
	}()
	err = c.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", brief(cmd.Args), context.Cause(ctx))
	}
	return l.outcome(cmd, t, err)
}

func (l *Local) outcome(cmd Cmd, t *tail, err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return &ExitError{Args: cmd.Args, Code: 127, Stderr: err.Error()} // as a shell says it
	case errors.As(err, &exit):
		e := &ExitError{Args: cmd.Args, Code: exit.ExitCode(), Stderr: t.String()}
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			e.Code, e.Signal = 128+int(status.Signal()), strings.TrimPrefix(unix.SignalName(status.Signal()), "SIG")
		}
		return e
	}
	return fmt.Errorf("%s: %w", brief(cmd.Args), err)
}

// Dial implements Runner.
func (l *Local) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if l.closed.Load() {
		return nil, net.ErrClosed
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// Put implements Runner.
func (l *Local) Put(ctx context.Context, path string, content io.Reader, size int64, mode fs.FileMode) error {
	return put(ctx, l, path, content, size, mode)
}

// Close implements Runner; nothing runs afterwards.
func (l *Local) Close() error {
	l.closed.Store(true)
	return nil
}
