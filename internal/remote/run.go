package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/k3lab/k3lab/internal/fault"
)

const (
	// announce has every command tell its process ID on stderr before it starts,
	// because sshd forwards no signals to what runs as root.
	announce     = `echo "` + pidMark + `$$" >&2; exec "$@"`
	pidMark      = "k3lab-pid:"
	termPatience = 3 * time.Second  // between asking a command to end and ending it
	openPatience = 10 * time.Second // for a machine that refuses sessions
	killPatience = 5 * time.Second  // for the machine to do either
)

// Run implements Runner. When ctx ends first, the command is ended too.
func (c *Client) Run(ctx context.Context, cmd Cmd) error {
	select {
	case c.sessions <- struct{}{}:
		defer func() { <-c.sessions }()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.lost:
		return c.broken(io.EOF)
	}
	s, err := c.session(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	r := newRunning(cmd)
	defer r.detach()
	s.Stdout, s.Stderr = r.stdout, r.stderr
	stdin, err := s.StdinPipe()
	if err != nil {
		return c.broken(err)
	}
	if err := s.Start(c.commandLine(cmd)); err != nil {
		return c.broken(err)
	}
	fed := make(chan error, 1)
	go func() { fed <- feed(stdin, cmd.Stdin) }()
	ended := make(chan struct{})
	var end error // once ended is closed
	go func() {
		defer close(ended)
		end = s.Wait()
	}()
	for {
		select {
		case <-ended:
			return c.outcome(cmd, r, end)
		case err := <-fed:
			fed = nil
			if err != nil && !errors.Is(err, io.EOF) { // what it was to read is gone; it must not go on with half of it
				c.kill(r, cmd.Root, ended)
				return fmt.Errorf("%s: stdin of %s: %w", c.machine, brief(cmd.Args), err)
			}
		case <-ctx.Done():
			c.kill(r, cmd.Root, ended)
			return fmt.Errorf("%s: %s: %w", c.machine, brief(cmd.Args), context.Cause(ctx))
		}
	}
}

// session opens a session. The machine may still count sessions that have ended,
// and refuse another until it no longer does.
func (c *Client) session(ctx context.Context) (*ssh.Session, error) {
	giveUp := time.Now().Add(openPatience)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		s, err := c.open(ctx)
		var refused *ssh.OpenChannelError
		if !errors.As(err, &refused) || time.Now().After(giveUp) {
			return s, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// open opens a session, which waits for the machine, without outliving ctx.
func (c *Client) open(ctx context.Context) (*ssh.Session, error) {
	type opened struct {
		session *ssh.Session
		err     error
	}
	ready := make(chan opened, 1)
	go func() {
		s, err := c.conn.NewSession()
		ready <- opened{s, err}
	}()
	select {
	case o := <-ready:
		if o.err != nil {
			return nil, c.broken(o.err)
		}
		return o.session, nil
	case <-ctx.Done():
		go func() {
			if o := <-ready; o.err == nil {
				o.session.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

func (c *Client) commandLine(cmd Cmd) string {
	args := append([]string{"sh", "-c", announce, "sh"}, cmd.Args...)
	return "exec " + Quote(c.asRoot(cmd.Root, args)...)
}

func (c *Client) asRoot(root bool, args []string) []string {
	if root && c.user != "root" {
		return append([]string{"sudo", "-n", "--"}, args...)
	}
	return args
}

// feed passes stdin on. Only a failure to read is an error: a command need not
// read all it is given.
// After one, the end of input is not told: what was read so far is not all.
func feed(to io.WriteCloser, from io.Reader) error {
	if from != nil {
		r := &reading{r: from}
		_, _ = io.Copy(to, r) // a failure to write shows as the command's end
		if r.err != nil {
			return r.err
		}
	}
	return to.Close()
}

type reading struct {
	r   io.Reader
	err error
}

func (r *reading) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

func (c *Client) outcome(cmd Cmd, r *running, err error) error {
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &exit):
		return c.broken(err)
	}
	r.stderr.flush()
	e := &ExitError{Args: cmd.Args, Code: exit.ExitStatus(), Signal: exit.Signal(), Stderr: r.tail.String()}
	if cmd.Root && c.user != "root" && strings.HasPrefix(e.Stderr, "sudo: ") && r.pid() == 0 {
		return fault.New(fault.Unreachable, c.machine, "a login user who may use sudo without a password", "user %s cannot become root: %s", c.user, lastLines(e.Stderr, 1))
	}
	return e
}

// kill ends the command and what it started, and waits until it has ended, but
// never longer than a machine that is alive needs.
func (c *Client) kill(r *running, root bool, ended <-chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), killPatience)
	defer cancel()
	select {
	case <-r.stderr.begun: // it tells its process ID before anything else
	case <-ended:
		return
	case <-ctx.Done():
		return // closing the session is all there is
	}
	pid := r.pid()
	for _, signal := range []string{"TERM", "KILL"} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.signal(ctx, signal, pid, root)
		}()
		select {
		case <-ended:
			<-done
			return
		case <-done:
		case <-ctx.Done():
			return
		}
		select {
		case <-ended:
			return
		case <-time.After(termPatience):
		case <-ctx.Done():
			return
		}
	}
}

// signal sends a signal to the command's process group.
func (c *Client) signal(ctx context.Context, name string, pid int, root bool) {
	s, err := c.session(ctx)
	if err != nil {
		return
	}
	defer s.Close()
	// The sixth word of stat is the process group; the second may hold blanks.
	script := `stat=$(cat "/proc/$2/stat") && stat=${stat##*) } && set -- "$1" $stat && kill -s "$1" -- "-$4"`
	args := c.asRoot(root, []string{"sh", "-c", script, "sh", name, strconv.Itoa(pid)})
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	_ = s.Run(Quote(args...)) // it may have ended by itself
}

// running is the output of one command.
type running struct {
	stdout *gate
	stderr *marked
	tail   *tail
}

func newRunning(cmd Cmd) *running {
	t := &tail{}
	var stderr io.Writer = t
	if cmd.Stderr != nil {
		stderr = io.MultiWriter(t, cmd.Stderr)
	}
	stdout := cmd.Stdout
	if stdout == nil {
		stdout = io.Discard
	}
	return &running{stdout: &gate{next: stdout}, stderr: &marked{gate: gate{next: stderr}, begun: make(chan struct{})}, tail: t}
}

func (r *running) pid() int { return r.stderr.number() }

// detach keeps what still arrives from the caller's writers.
func (r *running) detach() {
	r.stdout.shut()
	r.stderr.gate.shut()
}

// gate passes writes on until it is shut.
type gate struct {
	mu   sync.Mutex
	next io.Writer
}

func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.next == nil {
		return len(p), nil
	}
	return g.next.Write(p)
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next = nil
}

// marked passes stderr on without the line that tells the process ID.
type marked struct {
	gate  gate
	begun chan struct{} // closed when the process ID is known
	mu    sync.Mutex
	pid   int
	line  []byte // begun, and not ended yet; only before the mark
}

func (m *marked) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pid != 0 {
		return m.gate.Write(p)
	}
	m.line = append(m.line, p...)
	for m.pid == 0 {
		line, rest, whole := bytes.Cut(m.line, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		m.line = rest
		if digits, ok := bytes.CutPrefix(line, []byte(pidMark)); ok {
			if pid, err := strconv.Atoi(string(digits)); err == nil {
				m.pid = pid
				close(m.begun)
				break
			}
		}
		if _, err := m.gate.Write(append(bytes.Clone(line), '\n')); err != nil {
			return 0, err
		}
	}
	rest := m.line
	m.line = nil
	if len(rest) > 0 {
		if _, err := m.gate.Write(rest); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// flush passes on what a command wrote that ended before it told its process ID.
func (m *marked) flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _ = m.gate.Write(m.line) // into memory, or to a caller who is told of the end anyway
	m.line = nil
}

func (m *marked) number() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pid
}
