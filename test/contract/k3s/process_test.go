package k3s

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// patience bounds every wait: a real K3s on two busy cores is slow.
const patience = 2 * time.Minute

// process is a `k3s server` or `k3s agent` on a machine.
type process struct {
	machine *machine
	cmd     *exec.Cmd
	log     string
	ended   chan struct{}
	err     error // once ended

	mu    sync.Mutex
	ready bool
}

// start runs k3s with the machine's configuration files, as its unit would.
func (m *machine) start(t *testing.T, args ...string) *process {
	t.Helper()
	socket := filepath.Join(m.dir, "share", "notify")
	if err := os.RemoveAll(socket); err != nil {
		t.Fatal(err)
	}
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m.logs++
	log, err := os.Create(filepath.Join(m.dir, fmt.Sprintf("k3s-%d.log", m.logs)))
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"NOTIFY_SOCKET=/run/share/notify"}
	p := &process{machine: m, log: log.Name(), ended: make(chan struct{})}
	p.cmd = m.command(context.WithoutCancel(t.Context()), env, append([]string{"/usr/local/bin/k3s"}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.listen(notify)
	go func() {
		p.err = p.cmd.Wait()
		log.Close()
		notify.Close()
		close(p.ended)
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s: the end of its log:\n%s", m.name, p.tail(25))
		}
	})
	return p
}

// listen notes READY=1, which systemd waits for.
func (p *process) listen(notify *net.UnixConn) {
	buffer := make([]byte, 4096)
	for {
		n, err := notify.Read(buffer)
		if err != nil {
			return
		}
		for _, line := range strings.Split(string(buffer[:n]), "\n") {
			if line == "READY=1" {
				p.mu.Lock()
				p.ready = true
				p.mu.Unlock()
			}
		}
	}
}

// waitReady waits for READY=1.
func (p *process) waitReady(t *testing.T) {
	t.Helper()
	started := time.Now()
	p.while(t, "READY=1", p.isReady)
	t.Logf("%s: READY=1 after %.1f s", p.machine.name, time.Since(started).Seconds())
}

func (p *process) isReady() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ready {
		return errors.New("not ready")
	}
	return nil
}

// waitLog waits until the log holds a text.
func (p *process) waitLog(t *testing.T, text string) {
	t.Helper()
	p.while(t, text, func() error {
		if log, err := os.ReadFile(p.log); err != nil || !bytes.Contains(log, []byte(text)) {
			return errors.Join(err, fmt.Errorf("log without %q", text))
		}
		return nil
	})
}

// while waits for a condition that only a running process can bring about.
func (p *process) while(t *testing.T, what string, check func() error) {
	t.Helper()
	wait(t, p.machine.name+": "+what, func() error {
		select {
		case <-p.ended:
			if err := check(); err != nil {
				t.Fatalf("%s ended (%v) before %s:\n%s", p.machine.name, p.err, what, p.tail(25))
			}
		default:
		}
		return check()
	})
}

// waitEnd waits until the process ends by itself and returns its exit code.
func (p *process) waitEnd(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatalf("%s: still running:\n%s", p.machine.name, p.tail(25))
		return -1
	}
}

// stop ends k3s with SIGTERM, as systemd does first. The signal is for the
// child of nsenter, which passes none on.
func (p *process) stop(t *testing.T) {
	t.Helper()
	pid := strconv.Itoa(p.cmd.Process.Pid)
	children, err := os.ReadFile(filepath.Join("/proc", pid, "task", pid, "children"))
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		t.Fatalf("%s: not one k3s process: %q", p.machine.name, children)
	}
	if err := syscall.Kill(child, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.waitEnd(t)
}

func (p *process) tail(lines int) string {
	log, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(log)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// wait polls a check until it passes.
func wait(t *testing.T, what string, check func() error) {
	t.Helper()
	if err := poll(patience, check); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// soon polls what a running K3s brings about within moments.
func soon(t *testing.T, what string, check func() error) {
	t.Helper()
	if err := poll(30*time.Second, check); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// poll returns nil as soon as the check passes, else its last error.
func poll(limit time.Duration, check func() error) error {
	deadline := time.After(limit)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return err
		}
	}
}

// result is what one command said.
type result struct {
	stdout, stderr string
	code           int
}

// k3s runs one command on the machine.
func (m *machine) k3s(t *testing.T, args ...string) result {
	t.Helper()
	return m.run(t, append([]string{"/usr/local/bin/k3s"}, args...)...)
}

func (m *machine) run(t *testing.T, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := m.command(ctx, nil, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// ok runs one command that must succeed and returns what it wrote to stdout.
func (m *machine) ok(t *testing.T, args ...string) string {
	t.Helper()
	r := m.k3s(t, args...)
	if r.code != 0 {
		t.Fatalf("k3s %v: exit code %d\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// clients reach the API of a server with its own admin kubeconfig.
type clients struct {
	*kubernetes.Clientset
	dynamic *dynamic.DynamicClient
}

func (m *machine) clients(t *testing.T) clients {
	t.Helper()
	config, err := clientcmd.RESTConfigFromKubeConfig([]byte(m.read(t, "/etc/rancher/k3s/k3s.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	config.Dial = m.dial
	config.Timeout = 20 * time.Second
	config.WarningHandler = rest.NoWarnings{}
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	untyped, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return clients{typed, untyped}
}
