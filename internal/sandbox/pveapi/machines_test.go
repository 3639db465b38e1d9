package pveapi

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// recorder is NoMachines that remembers what it was told, can refuse to shut
// down, and whose machines can die.
type recorder struct {
	Machineless
	mu       sync.Mutex
	calls    []string
	specs    []Spec
	stubborn bool
	failing  error
}

func newRecorder() *recorder { return &recorder{Machineless: NoMachines()} }

func (m *recorder) note(format string, args ...any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, fmt.Sprintf(format, args...))
	return m.failing
}

// take returns the calls since the last time.
func (m *recorder) take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.calls
	m.calls = nil
	return c
}

func (m *recorder) Start(ctx context.Context, s Spec) error {
	m.mu.Lock()
	m.specs = append(m.specs, s)
	m.mu.Unlock()
	if err := m.note("start %d", s.VMID); err != nil {
		return err
	}
	return m.Machineless.Start(ctx, s)
}

func (m *recorder) Stop(ctx context.Context, vmid int) error {
	return errors.Join(m.note("stop %d", vmid), m.Machineless.Stop(ctx, vmid))
}

func (m *recorder) Shutdown(ctx context.Context, vmid int) error {
	if err := m.note("shutdown %d", vmid); err != nil {
		return err
	}
	if m.stubborn {
		<-ctx.Done()
		return ctx.Err()
	}
	return m.Machineless.Shutdown(ctx, vmid)
}

func (m *recorder) Delete(ctx context.Context, vmid int) error {
	return errors.Join(m.note("delete %d", vmid), m.Machineless.Delete(ctx, vmid))
}

func (m *recorder) Snapshot(ctx context.Context, vmid int, name string) error {
	return errors.Join(m.note("snapshot %d %s", vmid, name), m.Machineless.Snapshot(ctx, vmid, name))
}

func (m *recorder) Rollback(ctx context.Context, vmid int, name string) error {
	return errors.Join(m.note("rollback %d %s", vmid, name), m.Machineless.Rollback(ctx, vmid, name))
}

func (m *recorder) Copy(ctx context.Context, from, to int) error {
	return errors.Join(m.note("copy %d to %d", from, to), m.Machineless.Copy(ctx, from, to))
}

func withRecorder(t *testing.T) (*lab, *recorder) {
	m := newRecorder()
	o := testOptions(t)
	o.Power, o.Disks = m, m
	return open(t, o), m
}

func (x *lab) power(vmid int) string {
	x.t.Helper()
	return x.get("/nodes/pve1/qemu/"+vmidText(vmid)+"/status/current", nil).(map[string]any)["status"].(string)
}

// TestSpec: a machine is told all that its VM's configuration says.
func TestSpec(t *testing.T) {
	x, m := withRecorder(t)
	x.newVM("pve1", 100, map[string]string{
		"name": "server-1", "sockets": "2", "scsi0": "local-lvm:8", "virtio1": "local-lvm:1,serial=DATA01", "boot": "order=virtio1;scsi0",
		"ide2": "local-lvm:cloudinit", "net0": "virtio=bc:24:11:00:00:01,bridge=vmbr0,tag=150", "net1": "virtio=BC:24:11:00:00:02,bridge=vmbr1",
		"ciuser": "k3lab", "sshkeys": "ssh-ed25519%20AAAA%20me%40pc%0Assh-ed25519%20BBBB%0A", "ipconfig0": "ip=192.0.2.11/24,gw=192.0.2.1",
		"ipconfig1": "ip=dhcp", "nameserver": "192.0.2.53 192.0.2.54", "searchdomain": "lab.example",
	})
	x.must("POST", "/nodes/pve1/qemu/100/status/start", nil)
	want := []Spec{{
		VMID: 100, Name: "server-1", Hypervisor: "pve1", Cores: 4, MemoryMiB: 1024,
		Disks: []Disk{
			{Key: "virtio1", Volume: "local-lvm:vm-100-disk-1", Serial: "DATA01", SizeBytes: 1 << 30, Boot: true},
			{Key: "scsi0", Volume: "local-lvm:vm-100-disk-0", SizeBytes: 8 << 30},
		},
		NICs: []NIC{{Key: "net0", MAC: "BC:24:11:00:00:01", Bridge: "vmbr0", VLAN: 150}, {Key: "net1", MAC: "BC:24:11:00:00:02", Bridge: "vmbr1"}},
		CloudInit: CloudInit{
			User: "k3lab", SSHKeys: []string{"ssh-ed25519 AAAA me@pc", "ssh-ed25519 BBBB"}, Addresses: []string{"192.0.2.11/24", "dhcp"},
			Gateway: "192.0.2.1", DNSServers: []string{"192.0.2.53", "192.0.2.54"}, SearchDomain: "lab.example",
		},
	}}
	if d := cmp.Diff(want, m.specs); d != "" {
		t.Errorf("spec (-want +got):\n%s", d)
	}
}

// TestPower: what each power call does to the machine.
func TestPower(t *testing.T) {
	x, m := withRecorder(t)
	x.newVM("pve1", 100, nil)
	const status = "/nodes/pve1/qemu/100/status/"
	for _, tc := range []struct {
		call   string
		params map[string]string
		exit   string
		calls  []string
		after  string
	}{
		{"start", nil, "OK", []string{"start 100"}, "running"},
		{"start", nil, "VM 100 already running", nil, "running"},
		{"reset", nil, "OK", []string{"stop 100", "start 100"}, "running"},
		{"reboot", nil, "OK", []string{"shutdown 100", "start 100"}, "running"},
		{"shutdown", nil, "OK", []string{"shutdown 100"}, "stopped"},
		{"shutdown", nil, "OK", nil, "stopped"},
		{"stop", nil, "OK", []string{"stop 100"}, "stopped"},
	} {
		exit := x.run("POST", status+tc.call, tc.params)
		if d := cmp.Diff(tc.calls, m.take()); d != "" || exit != tc.exit || x.power(100) != tc.after {
			t.Errorf("%s: exit %q, then %s; calls (-want +got):\n%s", tc.call, exit, x.power(100), d)
		}
	}
	x.must("POST", status+"start", nil)
	m.take()
	m.stubborn = true
	if exit := x.run("POST", status+"shutdown", map[string]string{"timeout": "0"}); exit != "VM quit/powerdown failed - got timeout" {
		t.Errorf("shutdown of a stubborn machine ended with %q", exit)
	}
	x.must("POST", status+"shutdown", map[string]string{"timeout": "0", "forceStop": "1"})
	if d := cmp.Diff([]string{"shutdown 100", "shutdown 100", "stop 100"}, m.take()); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
	m.failing = errors.New("no such image")
	if exit := x.run("POST", status+"start", nil); exit != "start failed: no such image" || x.power(100) != "stopped" {
		t.Errorf("failing start ended with %q, VM is %s", exit, x.power(100))
	}
}

// TestBridges: a bridge that is not there is noticed at the start.
func TestBridges(t *testing.T) {
	o := testOptions(t)
	o.Hypervisors[0].Bridges = []string{"vmbr0"}
	x := open(t, o)
	x.newVM("pve1", 100, map[string]string{"net0": "virtio,bridge=vmbr9"})
	if exit := x.run("POST", "/nodes/pve1/qemu/100/status/start", nil); exit != "bridge 'vmbr9' does not exist" {
		t.Errorf("start ended with %q", exit)
	}
	x.ok("PUT", "/nodes/pve1/qemu/100/config", map[string]string{"net0": "virtio,bridge=vmbr0"})
	x.must("POST", "/nodes/pve1/qemu/100/status/start", nil)
}

// TestMachineDies: a machine that stops on its own is a stopped VM at once.
func TestMachineDies(t *testing.T) {
	x, m := withRecorder(t)
	x.newVM("pve1", 100, nil)
	x.must("POST", "/nodes/pve1/qemu/100/status/start", nil)
	if err := m.Machineless.Stop(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	if got := x.power(100); got != "stopped" {
		t.Errorf("status is %s", got)
	}
	x.must("POST", "/nodes/pve1/qemu/100/status/start", nil)
	if got := x.power(100); got != "running" {
		t.Errorf("status is %s after a new start", got)
	}
}

// TestPending: a running machine keeps what it was booted with.
func TestPending(t *testing.T) {
	x, m := withRecorder(t)
	x.newVM("pve1", 100, nil)
	x.must("POST", "/nodes/pve1/qemu/100/status/start", nil)
	x.ok("PUT", "/nodes/pve1/qemu/100/config", map[string]string{"cores": "8", "description": "hot"})
	cores := func(params map[string]string) any {
		return x.get("/nodes/pve1/qemu/100/config", params).(map[string]any)["cores"]
	}
	if now, next := cores(map[string]string{"current": "1"}), cores(nil); now != 2. || next != 8. {
		t.Errorf("cores are %v now and %v next, want 2 and 8", now, next)
	}
	var waiting []string
	for _, o := range x.get("/nodes/pve1/qemu/100/pending", nil).([]any) {
		if p := o.(map[string]any); p["pending"] != nil {
			waiting = append(waiting, fmt.Sprintf("%v: %v to %v", p["key"], p["value"], p["pending"]))
		}
	}
	if d := cmp.Diff([]string{"cores: 2 to 8"}, waiting); d != "" {
		t.Errorf("pending (-want +got):\n%s", d)
	}
	x.must("POST", "/nodes/pve1/qemu/100/status/reset", nil)
	x.must("POST", "/nodes/pve1/qemu/100/status/reboot", nil)
	var got []int
	for _, s := range m.specs {
		got = append(got, s.Cores)
	}
	if d := cmp.Diff([]int{2, 2, 8}, got); d != "" {
		t.Errorf("cores at start, reset and reboot (-want +got):\n%s", d)
	}
}

// TestSnapshots: configuration and disks go back together.
func TestSnapshots(t *testing.T) {
	x, m := withRecorder(t)
	x.newVM("pve1", 100, nil)
	const snap = "/nodes/pve1/qemu/100/snapshot"
	x.must("POST", "/nodes/pve1/qemu/100/status/start", nil)
	x.must("POST", snap, map[string]string{"snapname": "one", "description": "first"})
	x.refuse(500, "snapshot name 'one' already used", "POST", snap, map[string]string{"snapname": "one"})
	x.ok("PUT", "/nodes/pve1/qemu/100/config", map[string]string{"cores": "4"})
	x.must("POST", snap, map[string]string{"snapname": "two"})
	x.must("PUT", "/nodes/pve1/qemu/100/resize", map[string]string{"disk": "scsi0", "size": "20G"})
	m.take()
	x.must("POST", snap+"/one/rollback", nil)
	if d := cmp.Diff([]string{"stop 100", "rollback 100 one"}, m.take()); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
	want := map[string]any{"cores": 2., "memory": "1024", "name": "vm100", "scsi0": "local-lvm:vm-100-disk-0,size=8G", "boot": "order=scsi0", "parent": "one"}
	if d := cmp.Diff(want, x.config("pve1", 100)); d != "" {
		t.Errorf("config after rollback (-want +got):\n%s", d)
	}
	if got := x.power(100); got != "stopped" {
		t.Errorf("VM is %s after rollback", got)
	}
	x.must("DELETE", snap+"/one", nil)
	var names []string
	for _, o := range x.get(snap, nil).([]any) {
		s := o.(map[string]any)
		names = append(names, fmt.Sprintf("%v of %v", s["name"], s["parent"]))
	}
	if d := cmp.Diff([]string{"two of <nil>", "current of <nil>"}, names); d != "" {
		t.Errorf("snapshots (-want +got):\n%s", d)
	}
	m.take()
	x.must("DELETE", "/nodes/pve1/qemu/100", nil)
	if d := cmp.Diff([]string{"delete 100"}, m.take()); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
}

// TestClone: only what a machine has stored needs copying.
func TestClone(t *testing.T) {
	x, m := withRecorder(t)
	x.newVM("pve1", 100, nil)
	x.must("POST", "/nodes/pve1/qemu/100/clone", map[string]string{"newid": "101", "name": "fresh"})
	x.must("POST", "/nodes/pve1/qemu/100/status/start", nil)
	m.take()
	x.must("POST", "/nodes/pve1/qemu/100/clone", map[string]string{"newid": "102"})
	if d := cmp.Diff([]string{"copy 100 to 102"}, m.take()); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
	m.failing = errors.New("disk full")
	if exit := x.run("POST", "/nodes/pve1/qemu/100/clone", map[string]string{"newid": "103"}); exit != "clone failed: disk full\ndisk full" {
		t.Errorf("failing clone ended with %q", exit)
	}
	m.failing = nil
	if d := cmp.Diff([]string{"copy 100 to 103", "delete 103"}, m.take()); d != "" {
		t.Errorf("calls of a failing clone (-want +got):\n%s", d)
	}
	x.must("POST", "/nodes/pve1/qemu/100/clone", map[string]string{"newid": "103"})
	if got := x.config("pve1", 102)["name"]; got != "Copy-of-VM-vm100" {
		t.Errorf("an unnamed clone is called %v", got)
	}
}

// TestRestart: all that was answered is there after a restart; what a crash
// interrupted is mended.
func TestRestart(t *testing.T) {
	o := testOptions(t)
	first, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	x := serve(t, first)
	x.ok("POST", "/pools", map[string]string{"poolid": "lab"})
	x.newVM("pve1", 100, map[string]string{"pool": "lab"})
	x.newVM("pve1", 101, nil)
	x.must("POST", "/nodes/pve1/qemu/100/status/start", nil)
	x.must("POST", "/nodes/pve1/qemu/100/snapshot", map[string]string{"snapname": "before"})
	x.ok("POST", "/nodes/pve1/qemu/100/firewall/rules", map[string]string{"type": "in", "action": "ACCEPT", "enable": "1"})
	before := x.get("/cluster/resources", map[string]string{"type": "vm"})
	if err := first.SetFaults(Faults{TaskDelay: Duration(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	clone := x.ok("POST", "/nodes/pve1/qemu/100/clone", map[string]string{"newid": "200"}).(string)
	backup := x.ok("POST", "/nodes/pve1/vzdump", map[string]string{"vmid": "101"}).(string)

	// A crash: the state as it is on disk now, read by another process.
	o.StateDir = copyDir(t, o.StateDir)
	y := open(t, o)
	if d := cmp.Diff(before, y.get("/cluster/resources", map[string]string{"type": "vm"}), ignoreUptime()); d != "" {
		t.Errorf("VMs after the restart (-want +got):\n%s", d)
	}
	for _, upid := range []string{clone, backup} {
		if exit := y.wait(upid); exit != "interrupted" {
			t.Errorf("task %s ended with %q", upid, exit)
		}
	}
	y.must("POST", "/nodes/pve1/qemu/100/clone", map[string]string{"newid": "200"})
	y.ok("PUT", "/nodes/pve1/qemu/101/config", map[string]string{"name": "unlocked"})
	y.must("POST", "/nodes/pve1/qemu/100/snapshot/before/rollback", nil)
	if n := len(y.get("/nodes/pve1/qemu/100/firewall/rules", nil).([]any)); n != 1 {
		t.Errorf("%d firewall rules after the restart, want 1", n)
	}
}
