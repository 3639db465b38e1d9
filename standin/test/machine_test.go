package test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lan is a bridge in a network namespace of its own, to which machines are
// plugged. Nothing of it can be seen from outside.
type lan struct {
	t    *testing.T
	name string
	next int
}

func newLAN(t *testing.T) *lan {
	t.Helper()
	l := &lan{t: t, name: fmt.Sprintf("k3ls%d", os.Getpid()), next: 10}
	run(t, "ip", "netns", "add", l.name)
	t.Cleanup(func() { run(t, "ip", "netns", "del", l.name) })
	run(t, "ip", "-n", l.name, "link", "add", "br0", "type", "bridge")
	run(t, "ip", "-n", l.name, "link", "set", "br0", "up")
	return l
}

// machine is a network namespace with files of its own, in which k3s runs as
// it would on a computer.
type machine struct {
	t      *testing.T
	binary string
	ns     string
	name   string
	ip     string
	dir    string
	log    *os.File
	main   *exec.Cmd
	exited chan struct{}
	ready  chan struct{}
}

func (l *lan) machine(name, binary string) *machine {
	l.t.Helper()
	l.next++
	m := &machine{
		t: l.t, binary: binary, name: name, ns: l.name + name, dir: l.t.TempDir(),
		ip: fmt.Sprintf("198.18.90.%d", l.next),
	}
	run(l.t, "ip", "netns", "add", m.ns)
	l.t.Cleanup(func() {
		m.kill()
		run(l.t, "ip", "netns", "del", m.ns)
	})
	port := "p" + name
	for _, args := range [][]string{
		{"-n", m.ns, "link", "set", "lo", "up"},
		{"-n", m.ns, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", l.name},
		{"-n", l.name, "link", "set", port, "master", "br0", "up"},
		{"-n", m.ns, "addr", "add", m.ip + "/24", "dev", "eth0"},
		{"-n", m.ns, "link", "set", "eth0", "up"},
		{"-n", m.ns, "route", "add", "default", "via", "198.18.90.1"},
	} {
		run(l.t, "ip", args...)
	}
	for _, dir := range []string{"etc/k3s", "var"} {
		must(l.t, os.MkdirAll(filepath.Join(m.dir, dir), 0o755))
	}
	log, err := os.Create(filepath.Join(m.dir, "log"))
	must(l.t, err)
	m.log = log
	l.t.Cleanup(func() {
		if l.t.Failed() {
			l.t.Logf("last lines of %s:\n%s", name, tail(log.Name()))
		}
	})
	return m
}

func (m *machine) configure(lines ...string) {
	m.t.Helper()
	text := strings.Join(lines, "\n") + "\n"
	must(m.t, os.WriteFile(filepath.Join(m.dir, "etc/k3s/config.yaml"), []byte(text), 0o600))
}

// inside is a command in the machine's namespaces, with its files mounted where
// K3s looks for them. It replaces itself down to the program, so that killing
// it kills the program.
func (m *machine) inside(ctx context.Context, argv ...string) *exec.Cmd {
	script := `hostname "$0" && mkdir -p /etc/rancher /var/lib/rancher &&
mount --bind "$1/etc" /etc/rancher && mount --bind "$1/var" /var/lib/rancher && shift && exec "$@"`
	args := append([]string{"netns", "exec", m.ns, "unshare", "-m", "-u", "sh", "-c", script, m.name, m.dir}, argv...)
	return exec.CommandContext(ctx, "ip", args...)
}

// start starts k3s as systemd would, without waiting.
func (m *machine) start(args ...string) {
	m.t.Helper()
	socket := filepath.Join(m.dir, "notify")
	_ = os.Remove(socket) // left by an earlier start
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	must(m.t, err)
	m.ready, m.exited = make(chan struct{}), make(chan struct{})
	m.main = m.inside(context.Background(), append([]string{m.binary}, args...)...)
	m.main.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	m.main.Stdout, m.main.Stderr = m.log, m.log
	m.main.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(m.t, m.main.Start())
	go func(ready chan struct{}) {
		buffer := make([]byte, 256)
		if n, err := conn.Read(buffer); err == nil && bytes.Contains(buffer[:n], []byte("READY=1")) {
			close(ready)
		}
	}(m.ready)
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait() // how it ended is in ProcessState
		conn.Close()
		close(exited)
	}(m.main, m.exited)
}

func (m *machine) waitReady() {
	m.t.Helper()
	select {
	case <-m.ready:
	case <-m.exited:
		m.t.Fatalf("%s: k3s ended (%s) before it was ready", m.name, m.main.ProcessState)
	case <-time.After(patience):
		m.t.Fatalf("%s: k3s was not ready after %s", m.name, patience)
	}
}

// kill is what a power cut does: every process of the machine at once.
func (m *machine) kill() {
	for _, pid := range m.pids() {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone by now
	}
	if m.exited != nil {
		<-m.exited
	}
	eventually(m.t, "processes of "+m.name+" to end", func() error {
		if pids := m.pids(); len(pids) > 0 {
			return fmt.Errorf("still there: %v", pids)
		}
		return nil
	})
}

// stop is `systemctl stop`, which signals the main process only.
func (m *machine) stop() {
	m.t.Helper()
	must(m.t, m.main.Process.Signal(syscall.SIGTERM))
	<-m.exited
	if pids := m.pids(); len(pids) > 0 {
		m.t.Fatalf("%s: processes left after a stop: %v", m.name, pids)
	}
}

func (m *machine) pids() []int {
	out, _ := exec.Command("ip", "netns", "pids", m.ns).Output()
	var pids []int
	for _, field := range strings.Fields(string(out)) {
		var pid int
		if _, err := fmt.Sscan(field, &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// pidOf finds the process of one component.
func (m *machine) pidOf(component string) int {
	m.t.Helper()
	for _, pid := range m.pids() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if args := strings.Split(string(line), "\x00"); len(args) > 1 && args[1] == component {
			return pid
		}
	}
	m.t.Fatalf("%s: no process for %s", m.name, component)
	return 0
}

// k3s runs a k3s command to its end and returns what it printed.
func (m *machine) k3s(args ...string) (stdout, stderr string, err error) {
	return m.command(append([]string{m.binary}, args...)...)
}

func (m *machine) command(argv ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out, errOut bytes.Buffer
	cmd := m.inside(ctx, argv...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

// kubectl asks the API, briefly: callers ask again.
func (m *machine) kubectl(args ...string) (string, error) {
	out, errOut, err := m.k3s(append([]string{"kubectl", "--request-timeout=5s"}, args...)...)
	if err != nil {
		return "", fmt.Errorf("kubectl %v: %w: %s", args, err, errOut)
	}
	return out, nil
}

func (m *machine) mustKubectl(args ...string) string {
	m.t.Helper()
	out, err := m.kubectl(args...)
	must(m.t, err)
	return out
}

// patience is far above what anything here takes on a busy computer.
const patience = 2 * time.Minute

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s: %v", patience, what, err)
		}
		time.Sleep(100 * time.Millisecond) // between two questions, not instead of one
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func tail(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(data), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}
