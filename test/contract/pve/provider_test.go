package pve

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/luthermonson/go-proxmox"

	"github.com/k3lab/k3lab/internal/sandbox/pveapi"
)

// one is the smallest lab: a single machine.
const one = `-var=machines={"server-1"={"hypervisor"="pve1","vmid"=201,"ip"="192.0.2.11/24","mac"="BC:24:11:00:00:01","vlan"=0}}`

func machineAddress(name string) string {
	return `proxmox_virtual_environment_vm.machine["` + name + `"]`
}

// TestProviderLifecycle: whatever is applied leaves an empty plan, changes are
// made in place, and destroy leaves nothing.
func TestProviderLifecycle(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	tf := newTerraform(t, c, "testdata/lab")
	tf.apply()
	tf.noChanges()

	config := c.config(t, "pve1", 201)
	for key, want := range map[string]string{
		"scsi0":     "local-lvm:vm-201-disk-0,aio=io_uring,backup=1,cache=none,discard=on,iothread=1,replicate=1,size=12G,ssd=1",
		"scsi1":     "local-zfs:vm-201-disk-0,aio=io_uring,backup=1,cache=none,discard=ignore,iothread=0,replicate=1,serial=DATA01,size=20G,ssd=0",
		"net0":      "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,tag=150",
		"ipconfig0": "gw=192.0.2.1,ip=192.0.2.11/24",
		"tags":      "lab;server",
	} {
		if got := config[key]; got != want {
			t.Errorf("%s of VM 201 is %q, want %q", key, got, want)
		}
	}

	var vars []string // what has been changed so far
	for _, change := range []struct {
		name, arg string
	}{
		{"grow disk", "-var=disk_gib=30"},
		{"cloud-init", `-var=dns_servers=["192.0.2.53","192.0.2.54"]`},
		{"cores", "-var=cores=4"},
	} {
		vars = append(vars, change.arg)
		t.Run(change.name, func(t *testing.T) {
			tf := tf.with(t)
			tf.wantPlan([]string{
				"update " + machineAddress("agent-1"), "update " + machineAddress("server-1"), "update " + machineAddress("server-2"),
			}, vars...)
			tf.apply(vars...)
			tf.noChanges(vars...)
		})
	}
	if got := c.config(t, "pve1", 201)["scsi0"]; !strings.Contains(got, "size=30G") {
		t.Errorf("scsi0 of VM 201 is %q after growing to 30 GiB", got)
	}

	tf.run("destroy", "-no-color", "-auto-approve")
	if d := cmp.Diff([]string{}, c.leftovers(t)); d != "" {
		t.Errorf("left by destroy (-want +got):\n%s", d)
	}
}

// TestProviderMovedMachine: a VM moved to another hypervisor by hand is found
// there; the plan moves it back instead of making it anew.
func TestProviderMovedMachine(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	tf := newTerraform(t, c, "testdata/lab")
	tf.apply(one)
	ctx := within(t, time.Minute)
	vm := c.vm(ctx, t, "pve1", 201)
	task, err := vm.Migrate(ctx, &proxmox.VirtualMachineMigrateOptions{Target: "pve3", Online: true, WithLocalDisks: true})
	if err != nil {
		t.Fatal(err)
	}
	waitTask(ctx, t, task)
	plan := tf.plan(one)
	for _, p := range plan {
		if strings.Contains(p, "delete") {
			t.Errorf("the plan destroys something: %s", p)
		}
		if strings.Contains(p, "machine[") && !strings.HasPrefix(p, "update ") && !strings.Contains(p, "firewall") {
			t.Errorf("the plan does not update the machine: %s", p)
		}
	}
	if len(plan) == 0 {
		t.Error("the plan does not see that the VM has moved")
	}
	tf.apply(one)
	tf.noChanges(one)
	c.vm(ctx, t, "pve1", 201) // fails unless it is back
}

// TestProviderPoweredOff: a machine that died is started again, nothing more.
func TestProviderPoweredOff(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	tf := newTerraform(t, c, "testdata/lab")
	tf.apply(one)
	ctx := within(t, time.Minute)
	task, err := c.vm(ctx, t, "pve1", 201).Stop(ctx)
	if err != nil {
		t.Fatal(err)
	}
	waitTask(ctx, t, task)
	tf.wantPlan([]string{"update " + machineAddress("server-1")}, one)
	tf.apply(one)
	tf.noChanges(one)
}

// TestProviderFaults: the provider reports what the simulator was told to do,
// and the same configuration applies once the trouble is over.
func TestProviderFaults(t *testing.T) {
	for _, tc := range []struct {
		name   string
		faults pveapi.Faults
		want   string // in terraform's output
	}{
		{
			"clone fails", pveapi.Faults{Tasks: []pveapi.TaskFault{{Type: "qmclone", VMID: 201, Exit: "clone failed: no space left on device", Count: 1}}},
			"clone failed: no space left on device",
		},
		{
			"start fails", pveapi.Faults{Tasks: []pveapi.TaskFault{{Type: "qmstart", Exit: "start failed: QEMU exited with code 1", Count: 1}}},
			"start failed: QEMU exited with code 1",
		},
		{
			"template locked", pveapi.Faults{Locks: map[int]string{9001: "backup"}},
			"VM is locked (backup)",
		},
		{
			"server error", pveapi.Faults{Requests: []pveapi.RequestFault{{Method: "POST", Path: "^/pools$", Status: 596, Message: "Connection timed out", Count: 1}}},
			"Connection timed out",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			tf := newTerraform(t, c, "testdata/lab")
			if err := c.server.SetFaults(tc.faults); err != nil {
				t.Fatal(err)
			}
			code, out := tf.try("apply", "-no-color", "-auto-approve", one)
			if code != 1 || !strings.Contains(strings.Join(strings.Fields(out), " "), tc.want) {
				t.Errorf("apply: exit code %d, output without %q:\n%s", code, tc.want, out)
			}
			if err := c.server.SetFaults(pveapi.Faults{}); err != nil {
				t.Fatal(err)
			}
			tf.apply(one)
			tf.noChanges(one)
		})
	}
}

// TestProviderSlowTasks: tasks that take a while are waited for.
func TestProviderSlowTasks(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	tf := newTerraform(t, c, "testdata/lab")
	if err := c.server.SetFaults(pveapi.Faults{TaskDelay: pveapi.Duration(1200 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	tf.apply(one)
	tf.noChanges(one)
}

// TestProviderCredentials: the reason the API gives reaches the user.
func TestProviderCredentials(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	tf := newTerraform(t, c, "testdata/lab")
	tf.env = append(tf.env, "PROXMOX_VE_API_TOKEN=root@pam!k3lab=7b5c4a3e-0000-4000-8000-00000000beef")
	code, out := tf.try("apply", "-no-color", "-auto-approve", one)
	if want := "invalid token value!"; code != 1 || !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
		t.Errorf("apply with a wrong token: exit code %d, output without %q:\n%s", code, want, out)
	}
}

// vm fetches a VM with go-proxmox.
func (c *cluster) vm(ctx context.Context, t *testing.T, node string, vmid int) *proxmox.VirtualMachine {
	t.Helper()
	n, err := c.goClient(t).Node(ctx, node)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := n.VirtualMachine(ctx, vmid)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}
