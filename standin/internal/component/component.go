// Package component runs the parts of a server as child processes of the one
// binary, because Kubernetes' parts install signal handlers, configure logging
// and end the process each as if they were alone in it.
//
// Children live and die together: when one ends, the others are stopped, and
// when the parent is killed, the kernel kills them.
package component

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
)

// grace is how long a stopped child may take before it is killed. K3s's own
// parts vanish with their process, so nothing may depend on a longer goodbye.
const grace = 3 * time.Second

// Supervisor starts children and waits for the first to end.
type Supervisor struct {
	mu       sync.Mutex
	children []*child
	failed   chan error
	stopping bool
	broken   bool
	// Exe is the program to start; this one, unless a test says otherwise.
	Exe string
}

type child struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
}

// NewSupervisor returns a supervisor without children.
func NewSupervisor() *Supervisor {
	return &Supervisor{failed: make(chan error, 1), Exe: "/proc/self/exe"}
}

// logs is where a child's log goes: without Kubernetes' informational lines,
// unless debugging, so that the end of the journal says what went wrong.
func (s *Supervisor) logs() io.Writer {
	if logrus.IsLevelEnabled(logrus.DebugLevel) {
		return os.Stderr
	}
	return &quieter{out: os.Stderr}
}

// Start runs this binary again as the named component.
func (s *Supervisor) Start(name string, args ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return fmt.Errorf("%s: not started, the server is stopping", name)
	}
	//nolint:noctx // children end with the supervisor, in its order
	cmd := exec.Command(s.Exe, append([]string{name}, args...)...)
	cmd.Args[0] = "k3s"
	cmd.Stdout, cmd.Stderr = os.Stdout, s.logs()
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c := &child{name: name, cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel ties the death signal to the thread that forked, so
		// that thread must live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		s.ended(c, cmd.Wait())
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s.children = append(s.children, c)
	return nil
}

func (s *Supervisor) ended(c *child, err error) {
	close(c.done)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return
	}
	s.broken = true
	select {
	case s.failed <- fmt.Errorf("%s ended: %v", c.name, reason(err)):
	default:
	}
}

// reason words an exit that is an error merely by happening.
func reason(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// Failed delivers the first child's end.
func (s *Supervisor) Failed() <-chan error { return s.failed }

// Guard returns a context that is cancelled when a child ends, so that nobody
// goes on waiting for something that died.
func (s *Supervisor) Guard(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case err := <-s.failed:
			cancel(err)
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// Stop ends all children, the last started first, and returns when they are
// gone. Once one has failed, the others are killed: they could only wait for
// it.
func (s *Supervisor) Stop() {
	s.mu.Lock()
	s.stopping = true
	children := s.children
	deadline := time.After(grace)
	if s.broken {
		deadline = time.After(0)
	}
	s.mu.Unlock()
	for i := len(children) - 1; i >= 0; i-- {
		c := children[i]
		_ = c.cmd.Process.Signal(syscall.SIGTERM) // fails only when it is gone
		if i > 0 && children[i-1].name == "etcd" {
			// The API server writes to etcd until its end.
			wait(children[i:], deadline)
		}
	}
	wait(children, deadline)
}

func wait(children []*child, deadline <-chan time.Time) {
	for _, c := range children {
		select {
		case <-c.done:
		case <-deadline:
			logrus.Debugf("Killing %s", c.name)
			for _, late := range children {
				_ = late.cmd.Process.Kill()
			}
			for _, late := range children {
				<-late.done
			}
			return
		}
	}
}
