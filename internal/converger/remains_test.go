package converger

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// containerMachine is a machine with processes, interfaces and rules of containers.
type containerMachine struct {
	*fakeMachine
	t     *testing.T
	rules map[string]string // program → what it lists
	lists string            // of addresses
	ran   []string
}

func (m *containerMachine) process(pid, parent int, program string) {
	m.t.Helper()
	dir := filepath.Join(m.root, "proc", fmt.Sprint(pid))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Symlink(program, filepath.Join(dir, "exe")); err != nil {
		m.t.Fatal(err)
	}
	m.write(m.t, fmt.Sprintf("/proc/%d/stat", pid), fmt.Sprintf("%d (a (b) c) S %d 0 0", pid, parent))
}

func (m *containerMachine) run(ctx context.Context, env []string, args ...string) ([]byte, error) {
	line := strings.Join(args, " ")
	remove := func(path string) error { return os.RemoveAll(filepath.Join(m.root, path)) }
	switch {
	case strings.HasPrefix(line, "ip -oneline address show to "):
		return []byte(m.lists), nil
	case strings.HasSuffix(args[0], "-save"):
		rules, ok := m.rules[strings.TrimSuffix(args[0], "-save")]
		if !ok {
			return nil, &exec.Error{Name: args[0], Err: exec.ErrNotFound}
		}
		return []byte(rules), nil
	case args[0] == "ip":
		m.ran = append(m.ran, line)
		if args[1] == "address" {
			m.lists = ""
		}
		return nil, remove(map[string]string{"netns": "/run/netns/", "link": "/sys/class/net/", "address": "/none/"}[args[1]] + args[3])
	case args[0] == "sh" && strings.HasPrefix(args[2], "kill "):
		m.ran = append(m.ran, "kill "+strings.Join(args[4:], " "))
		for _, pid := range args[4:] {
			if err := remove("/proc/" + pid); err != nil {
				return nil, err
			}
		}
		return nil, nil
	case args[0] == "sh":
		m.ran = append(m.ran, "filter "+strings.Join(args[4:], " "))
		m.rules[args[4]] = "-A INPUT -j ACCEPT\n"
		return nil, nil
	}
	return m.fakeMachine.run(ctx, env, args...)
}

func TestRemains(t *testing.T) {
	q := Request{State: State{Resources: []Resource{{Remains: &Remains{
		Programs: []string{"/data/bin", "/bin/k3s"}, Interfaces: []string{"cni0", "flannel.1"}, Namespaces: "cni-",
		Addresses: []string{"192.0.2.10"}, Chains: []string{"KUBE-", "CNI-"}, Tools: "/data/aux",
	}}}}}
	delete := func(detail string, made bool) []Change {
		return []Change{{Resource: "remains", Action: "delete", Detail: detail, Made: made}}
	}
	tests := map[string]struct {
		prepare func(m *containerMachine)
		detail  string
		ran     []string
	}{
		"a machine that never ran containers": {prepare: func(*containerMachine) {}},
		"what is somebody else's": {prepare: func(m *containerMachine) {
			m.process(7, 1, "/usr/bin/data/bin/x")
			m.process(8, 1, "/data/binary")
			m.write(m.t, "/sys/class/net/eth0", "")
			m.write(m.t, "/run/netns/vpn", "")
			m.rules["iptables"] = "-A INPUT -j ACCEPT\n"
		}},
		"processes, and all they have started": {prepare: func(m *containerMachine) {
			m.process(7, 1, "/data/bin/shim (deleted)")
			m.process(8, 7, "/pause")
			m.process(9, 8, "/sh")
			m.process(10, 1, "/bin/k3s")
			m.process(11, 1, "/bin/k3s (deleted)")
			m.process(12, 1, "/sh")
		}, detail: "5 processes", ran: []string{"kill 7 8 9 10 11"}},
		"all of it": {prepare: func(m *containerMachine) {
			m.process(7, 1, "/data/bin/shim")
			m.write(m.t, "/sys/class/net/flannel.1", "")
			m.write(m.t, "/sys/class/net/cni0", "")
			m.write(m.t, "/run/netns/cni-1234", "")
			m.lists = "2: eth0    inet 192.0.2.10/32 scope global eth0\\       valid_lft forever preferred_lft forever\n"
			m.rules["iptables"] = ":KUBE-SERVICES - [0:0]\n-A INPUT -j ACCEPT\n"
			m.rules["ip6tables"] = "-A INPUT -j ACCEPT\n"
		}, detail: "1 process, interfaces cni0, flannel.1, 1 network namespace, address 192.0.2.10/32, chains of iptables",
			ran: []string{"kill 7", "ip netns delete cni-1234", "ip address delete 192.0.2.10/32 dev eth0", "ip link delete cni0", "ip link delete flannel.1",
				"filter iptables -e KUBE- -e CNI-"}},
		"rules, with a program that came along": {prepare: func(m *containerMachine) { m.rules["/data/aux/ip6tables"] = "-A CNI-x\n" },
			detail: "chains of iptables", ran: []string{"filter /data/aux/ip6tables -e KUBE- -e CNI-"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := &containerMachine{fakeMachine: newFakeMachine(t), t: t, rules: map[string]string{}}
			test.prepare(m)
			c := &Converger{root: m.root, programs: m, lockWait: lockWait}
			var wantPlan, wantMade []Change
			if test.detail != "" {
				wantPlan, wantMade = delete(test.detail, false), delete(test.detail, true)
			}
			if d := cmp.Diff(wantPlan, plan(t, c, q)); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
			if d := cmp.Diff(wantMade, apply(t, c, q)); d != "" {
				t.Errorf("apply (-want +got):\n%s", d)
			}
			if d := cmp.Diff(test.ran, m.ran); d != "" {
				t.Errorf("ran (-want +got):\n%s", d)
			}
			if again := plan(t, c, q); again != nil {
				t.Errorf("plan afterwards: %v", again)
			}
		})
	}
}

func TestRemainsMeanWhatTheySay(t *testing.T) {
	good := Remains{Programs: []string{"/data"}, Namespaces: "cni-", Tools: "/aux"}
	for name, test := range map[string]struct {
		change func(l *Remains)
		want   string
	}{
		"every program":   {func(l *Remains) { l.Programs = []string{"/"} }, `remains: "/" is no absolute, clean path`},
		"every namespace": {func(l *Remains) { l.Namespaces = "" }, `remains: "" is no plain word`},
		"every rule":      {func(l *Remains) { l.Chains = []string{""} }, `remains: "" is no plain word`},
		"an option":       {func(l *Remains) { l.Interfaces = []string{"-x"} }, `remains: "-x" is no plain word`},
		"no address":      {func(l *Remains) { l.Addresses = []string{"all"} }, `remains: ParseAddr("all"): unable to parse IP`},
	} {
		t.Run(name, func(t *testing.T) {
			l := good
			test.change(&l)
			err := New(t.TempDir()).Plan(t.Context(), Request{State: State{Resources: []Resource{{Remains: &l}}}}, func(Change) {})
			if err == nil || err.Error() != test.want {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
}

// TestWhatIsMountedIsNotRemoved: a directory goes without what is mounted in it.
func TestWhatIsMountedIsNotRemoved(t *testing.T) {
	f := newFakeMachine(t)
	disk := t.TempDir()
	f.write(t, "/var/lib/pods/a/own", "")
	f.write(t, "/var/lib/pods/a/volume here/x", "")
	if err := os.WriteFile(filepath.Join(disk, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	point := filepath.Join(f.root, "/var/lib/pods/a/volume here")
	mount := func(at string) {
		t.Helper()
		if err := unix.Mount(disk, at, "", unix.MS_BIND, ""); err != nil {
			t.Skipf("mount: %v (needs root)", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) }) // gone already when all is well
	}
	mount(point)
	absent := func(unmount bool, path string) Request {
		return Request{State: State{Resources: []Resource{{Absent: &Absent{Path: path, Unmount: unmount}}}}}
	}
	want := []Change{{Resource: "absent /var/lib/pods", Error: "is not removed, because " + point + " is mounted"}}
	if d := cmp.Diff(want, apply(t, f.converger(), absent(false, "/var/lib/pods"))); d != "" {
		t.Errorf("not told to unmount (-want +got):\n%s", d)
	}
	want = []Change{{Resource: "absent /var/lib/pods", Action: "delete", Detail: "directory with what it holds", Made: true}}
	if d := cmp.Diff(want, apply(t, f.converger(), absent(true, "/var/lib/pods"))); d != "" {
		t.Errorf("told to unmount (-want +got):\n%s", d)
	}
	if f.read("/var/lib/pods/a/own") == "" {
		t.Error("/var/lib/pods is still there")
	}
	if _, err := os.Stat(filepath.Join(disk, "precious")); err != nil {
		t.Errorf("what was mounted there: %v", err)
	}

	f.write(t, "/var/lib/kubelet/x", "")
	own := t.TempDir()
	disk = own
	for _, name := range []string{"config", "pods"} {
		if err := os.WriteFile(filepath.Join(own, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mount(filepath.Join(f.root, "/var/lib/kubelet"))
	want = []Change{{Resource: "absent /var/lib/kubelet", Action: "delete", Detail: "what the mounted directory holds", Made: true}}
	if d := cmp.Diff(want, apply(t, f.converger(), absent(true, "/var/lib/kubelet"))); d != "" {
		t.Errorf("a mount point (-want +got):\n%s", d)
	}
	if entries, err := os.ReadDir(own); err != nil || len(entries) != 0 {
		t.Errorf("it holds %v, %v", entries, err)
	}
	if again := plan(t, f.converger(), absent(true, "/var/lib/kubelet")); again != nil {
		t.Errorf("again: %v", again)
	}
}

func TestUnescaped(t *testing.T) {
	want := []string{"/a b", "/a", `/a\`, `/\0`}
	got := []string{unescaped(`/a\040b`), unescaped("/a"), unescaped(`/a\134`), unescaped(`/\0`)}
	if !slices.Equal(want, got) {
		t.Errorf("%q, want %q", got, want)
	}
}
