package k3s

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

//go:embed machine.sh
var machineScript string

// lab is a network of machines. When the test process goes, so does all of it:
// every machine ends with the pipe that its first process reads.
type lab struct {
	dir, binary string
	groups      *groups
	machines    int
	wires       *exec.Cmd // holds the network namespace of the bridge
}

// newLab makes an empty network for as long as the test runs.
func newLab(t *testing.T, binary string) *lab {
	t.Helper()
	dir, err := os.MkdirTemp("", "k3lab-contract-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "machine.sh"), []byte(machineScript), 0o600); err != nil {
		t.Fatal(err)
	}
	l := &lab{dir: dir, binary: binary, groups: newGroups(t)}
	script := "ip link add br0 type bridge; ip link set br0 up; ip link set lo up; echo up; exec cat >/dev/null"
	l.wires = exec.Command("sh", "-ec", script)
	l.wires.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	_, lines := keep(t, l.wires)
	expectLine(t, lines, "up")
	return l
}

// machine is one computer of a lab.
type machine struct {
	lab      *lab
	name, ip string
	dir      string // on the computer that runs the test
	pid      int    // of its first process
	groups   []string
	logs     int // written so far
}

// machine starts a new one; its address is the lab's next.
func (l *lab) machine(t *testing.T, name string) *machine {
	t.Helper()
	l.machines++
	m := &machine{
		lab: l, name: name, ip: fmt.Sprintf("10.88.0.%d", l.machines),
		dir: filepath.Join(l.dir, name), groups: l.groups.child(t, name),
	}
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	args := append([]string{filepath.Join(l.dir, "machine.sh"), m.dir, name, l.binary, m.ip}, m.groups...)
	cmd := exec.Command("sh", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
	}
	stdin, lines := keep(t, cmd)
	m.pid = cmd.Process.Pid
	expectLine(t, lines, "ready")
	wire := fmt.Sprintf("ip link add m%d type veth peer name eth0 netns %d; ip link set m%d master br0 up",
		l.machines, m.pid, l.machines)
	out, err := exec.Command("nsenter", "-t", fmt.Sprint(l.wires.Process.Pid), "-n", "sh", "-ec", wire).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: connect: %v\n%s", name, err, out)
	}
	if _, err := io.WriteString(stdin, "\n"); err != nil {
		t.Fatal(err)
	}
	expectLine(t, lines, "up")
	return m
}

// keep runs a command until the test ends; closing its input ends it.
func keep(t *testing.T, cmd *exec.Cmd) (io.Writer, *bufio.Scanner) {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v", cmd.Args, err)
		}
	})
	return stdin, bufio.NewScanner(stdout)
}

func expectLine(t *testing.T, lines *bufio.Scanner, want string) {
	t.Helper()
	if !lines.Scan() || lines.Text() != want {
		t.Fatalf("machine.sh said %q, want %q", lines.Text(), want)
	}
}

// path is where the test finds a file of the machine. Links in it must not be
// absolute: they would lead out of the machine.
func (m *machine) path(file string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", m.pid), file)
}

func (m *machine) read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(m.path(file))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func (m *machine) write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(m.path(file), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// remove deletes files of the machine, with all that is below them.
func (m *machine) remove(t *testing.T, files ...string) {
	t.Helper()
	for _, file := range files {
		if err := os.RemoveAll(m.path(file)); err != nil {
			t.Fatal(err)
		}
	}
}

// command prepares a program that runs inside the machine, in its cgroups.
func (m *machine) command(ctx context.Context, env []string, args ...string) *exec.Cmd {
	join := `n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 >"$1/cgroup.procs"; shift; n=$((n-1)); done; exec "$@"`
	all := append([]string{"-ec", join, "sh", fmt.Sprint(len(m.groups))}, m.processGroups()...)
	all = append(all, "nsenter", "-t", fmt.Sprint(m.pid), "-n", "-m", "-u", "-i", "-p", "-C", "--")
	cmd := exec.CommandContext(ctx, "sh", append(all, args...)...)
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}, env...)
	return cmd
}

// dial connects to an address as a program on the machine would.
func (m *machine) dial(ctx context.Context, network, address string) (net.Conn, error) {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer own.Close()
	theirs, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.pid))
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer theirs.Close()
	if err := unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	conn, err := (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, network, address)
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		return conn, back // the thread stays locked and ends with the goroutine
	}
	runtime.UnlockOSThread()
	return conn, err
}

// listening is the set of TCP addresses the machine listens on; * is any.
func (m *machine) listening(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", m.pid, table))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(data), "\n") {
			fields := strings.Fields(line)
			if len(fields) < 4 || fields[3] != "0A" {
				continue
			}
			found[listener(fields[1])] = true
		}
	}
	return found
}

// listener writes an address of /proc/net/tcp (little-endian words) in words.
func listener(text string) string {
	address, portText, _ := strings.Cut(text, ":")
	port, err := strconv.ParseUint(portText, 16, 16)
	if err != nil {
		return text
	}
	if strings.Trim(address, "0") == "" {
		return fmt.Sprintf("*:%d", port)
	}
	octets, err := hex.DecodeString(address)
	if err != nil {
		return text
	}
	last := octets[len(octets)-4:]
	slices.Reverse(last)
	return fmt.Sprintf("%s:%d", net.IP(last), port)
}
