package pveapi

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestTaskFaults: rules apply as often as they say, to the tasks they mean.
func TestTaskFaults(t *testing.T) {
	x := open(t, testOptions(t))
	x.newVM("pve1", 100, nil)
	x.newVM("pve1", 101, nil)
	if err := x.server.SetFaults(Faults{Tasks: []TaskFault{
		{Type: "qmstart", VMID: 100, Exit: "no luck", Count: 2},
		{Type: "qmdestroy", Exit: "never", Count: -1},
	}}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, vmid := range []string{"100", "101", "100", "100"} {
		got = append(got, vmid+" "+x.run("POST", "/nodes/pve1/qemu/"+vmid+"/status/start", nil))
		x.must("POST", "/nodes/pve1/qemu/"+vmid+"/status/stop", nil)
	}
	got = append(got, x.run("DELETE", "/nodes/pve1/qemu/101", nil), x.run("DELETE", "/nodes/pve1/qemu/101", nil))
	want := []string{"100 no luck", "101 OK", "100 no luck", "100 OK", "never", "never"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("tasks (-want +got):\n%s", d)
	}
	left := Faults{Tasks: []TaskFault{{Type: "qmdestroy", Exit: "never", Count: -1}}, Locks: map[int]string{}}
	if d := cmp.Diff(left, x.server.Faults()); d != "" {
		t.Errorf("rules left (-want +got):\n%s", d)
	}
}

// TestFailedCreate: nothing stays of a VM whose creation failed.
func TestFailedCreate(t *testing.T) {
	x := open(t, testOptions(t))
	x.newVM("pve1", 100, nil)
	if err := x.server.SetFaults(Faults{Tasks: []TaskFault{{Type: "qmclone", Exit: "clone failed: io error"}}}); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ path, vmid, want string }{
		{"/nodes/pve1/qemu/100/clone", "newid", "clone failed: io error"},
		{"/nodes/pve1/qemu", "vmid", "unable to create VM 200 - volume local-lvm:nope does not exist"},
	} {
		if exit := x.run("POST", tc.path, map[string]string{tc.vmid: "200", "scsi0": "local-lvm:nope"}); exit != tc.want {
			t.Errorf("task ended with %q, want %q", exit, tc.want)
		}
		x.refuse(500, "Configuration file 'nodes/pve1/qemu-server/200.conf' does not exist", "GET", "/nodes/pve1/qemu/200/config", nil)
		x.refuse(200, "OK", "GET", "/cluster/nextid", map[string]string{"vmid": "200"})
	}
}

// TestLocks: while a clone is being made its configuration is locked, and its
// source is not.
func TestLocks(t *testing.T) {
	x := open(t, testOptions(t))
	x.newVM("pve1", 100, nil)
	if err := x.server.SetFaults(Faults{Tasks: []TaskFault{{Type: "qmclone", VMID: 200, Delay: Duration(time.Hour)}}}); err != nil {
		t.Fatal(err)
	}
	slow := x.ok("POST", "/nodes/pve1/qemu/100/clone", map[string]string{"newid": "200"}).(string)
	if lock := x.get("/nodes/pve1/qemu/200/status/current", nil).(map[string]any)["lock"]; lock != "clone" {
		t.Errorf("lock is %v, want clone", lock)
	}
	x.refuse(500, "VM is locked (clone)", "POST", "/nodes/pve1/qemu/200/config", map[string]string{"name": "a"})
	x.refuse(500, "VM is locked (clone)", "POST", "/nodes/pve1/qemu/200/snapshot", map[string]string{"snapname": "before"})
	x.must("POST", "/nodes/pve1/qemu/100/clone", map[string]string{"newid": "201"})
	x.ok("DELETE", "/nodes/pve1/tasks/"+slow, nil)
	if exit := x.wait(slow); exit != "interrupted by signal" {
		t.Errorf("stopped task ended with %q", exit)
	}
	x.refuse(500, "Configuration file 'nodes/pve1/qemu-server/200.conf' does not exist", "GET", "/nodes/pve1/qemu/200/config", nil)

	if err := x.server.SetFaults(Faults{Locks: map[int]string{201: "backup"}}); err != nil {
		t.Fatal(err)
	}
	x.refuse(500, "VM is locked (backup)", "PUT", "/nodes/pve1/qemu/201/config", map[string]string{"name": "a"})
	if exit := x.run("POST", "/nodes/pve1/qemu/201/status/start", nil); exit != "VM is locked (backup)" {
		t.Errorf("start of a locked VM ended with %q", exit)
	}
}

// TestBusyVM: tasks on one VM wait for each other, but not for ever.
func TestBusyVM(t *testing.T) {
	o := testOptions(t)
	o.LockTimeout = 50 * time.Millisecond
	x := open(t, o)
	x.newVM("pve1", 100, nil)
	if err := x.server.SetFaults(Faults{Tasks: []TaskFault{{Type: "qmstart", Delay: Duration(time.Hour)}}}); err != nil {
		t.Fatal(err)
	}
	start := x.ok("POST", "/nodes/pve1/qemu/100/status/start", nil).(string)
	const want = "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout"
	if exit := x.run("POST", "/nodes/pve1/qemu/100/status/stop", nil); exit != want {
		t.Errorf("second task ended with %q, want %q", exit, want)
	}
	x.refuse(500, want, "PUT", "/nodes/pve1/qemu/100/config", map[string]string{"name": "a"})
	x.ok("DELETE", "/nodes/pve1/tasks/"+start, nil)
	x.wait(start)
	x.must("POST", "/nodes/pve1/qemu/100/status/start", nil)
}

// TestFaultEndpoint: the rules can be set over the API, and tell of mistakes.
func TestFaultEndpoint(t *testing.T) {
	x := open(t, testOptions(t))
	r := x.sendJSON("POST", "/k3lab/faults", map[string]any{
		"task_delay": "1ms", "silent_agents": []int{100},
		"requests": []object{{"method": "GET", "path": "^/version$", "status": 502, "message": "Bad things", "count": 2}},
	})
	if r.code != 200 {
		t.Fatalf("%d %s %v", r.code, r.reason, r.errors)
	}
	x.refuse(502, "Bad things", "GET", "/version", nil)
	x.newVM("pve1", 100, map[string]string{"agent": "1"})
	x.must("POST", "/nodes/pve1/qemu/100/status/start", nil)
	x.refuse(500, "QEMU guest agent is not running", "POST", "/nodes/pve1/qemu/100/agent/ping", nil)
	x.refuse(502, "Bad things", "GET", "/version", nil)
	x.refuse(200, "OK", "GET", "/version", nil)
	want := map[string]any{"task_delay": "1ms", "silent_agents": []any{100.}}
	if d := cmp.Diff(want, x.get("/k3lab/faults", nil)); d != "" {
		t.Errorf("rules (-want +got):\n%s", d)
	}
	x.ok("DELETE", "/k3lab/faults", nil)
	if d := cmp.Diff(map[string]any{}, x.get("/k3lab/faults", nil)); d != "" {
		t.Errorf("rules after their removal (-want +got):\n%s", d)
	}
	x.refuse(200, "OK", "POST", "/nodes/pve1/qemu/100/agent/ping", nil)
	for _, bad := range []object{
		{"requests": []object{{"path": "("}}},
		{"requests": []object{{"status": 200}}},
		{"task_delay": "soon"},
	} {
		if r := x.sendJSON("POST", "/k3lab/faults", bad); r.code != 400 || r.errors["faults"] == nil {
			t.Errorf("%v: %d %s %v", bad, r.code, r.reason, r.errors)
		}
	}
}
