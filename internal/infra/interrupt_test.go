package infra_test

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/infra"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/sandbox/pveapi"
	"github.com/k3lab/k3lab/internal/step"
)

// slowClones makes clones last long enough to interrupt them.
var slowClones = pveapi.Faults{Tasks: []pveapi.TaskFault{{Type: "qmclone", Delay: pveapi.Duration(1500 * time.Millisecond), Count: -1}}}

// creating returns a channel that is closed when a machine begins to be made.
func (e *events) creating(machine string) <-chan struct{} {
	seen := make(chan struct{})
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watch = func(event report.Event) {
		if event.Object == machine && event.Message == "creating" {
			close(seen)
		}
	}
	return seen
}

func TestInterrupted(t *testing.T) {
	r := newRig(t)
	r.faults(slowClones)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begun := r.events.creating("server-1")
	failed := make(chan error, 1)
	go func() { _, err := r.up(ctx); failed <- err }()
	select {
	case <-begun:
	case err := <-failed:
		t.Fatalf("ended before a machine was begun: %v", err)
	}
	cancel()
	err := <-failed
	want := "terraform: terraform apply was interrupted; what was made is in the state: context canceled (try: the same command again)"
	if err == nil || err.Error() != want || fault.KindOf(err) != fault.Interrupted {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	vms, err := r.vms()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := vms[201]; !ok {
		t.Errorf("what had begun was not finished: %v", vms)
	}
	r.whole()
}

// TestKilled kills terraform in the middle of clones, so that VMs exist its
// state does not know of.
func TestKilled(t *testing.T) {
	r := newRig(t)
	onlyTerraform(t)
	r.faults(slowClones)
	notes := filepath.Join(t.TempDir(), "notes")
	r.binary = wrapper(t, notes)
	begun := r.events.creating("server-1")
	failed := make(chan error, 1)
	go func() { _, err := r.up(t.Context()); failed <- err }()
	select {
	case <-begun:
	case err := <-failed:
		t.Fatalf("ended before a machine was begun: %v", err)
	}
	for { // until Proxmox has the VM, which it does before the clone is done
		vms, err := r.vms()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := vms[201]; ok {
			break
		}
	}
	lines := strings.Fields(strings.TrimSpace(read(t, notes+".pid")))
	pid, err := strconv.Atoi(lines[len(lines)-1])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("got %v, want that terraform was killed", err)
	}
	for { // until Proxmox is done with the clones nobody waits for any more
		var tasks []struct{ Status string }
		r.api(http.MethodGet, "/nodes/pve1/tasks?source=active", nil, &tasks)
		var more []struct{ Status string }
		r.api(http.MethodGet, "/nodes/pve2/tasks?source=active", nil, &more)
		if len(tasks)+len(more) == 0 {
			break
		}
	}
	planned, err := r.plan()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(planned, "\n"), "update server-1 : taken over from an interrupted run") {
		t.Errorf("server-1 is not taken over:\n%s", strings.Join(planned, "\n"))
	}
	r.whole()
}

// onlyTerraform skips what OpenTofu cannot do (replacedOnImport says why).
func onlyTerraform(t *testing.T) {
	t.Helper()
	if filepath.Base(terraform(t)) != "terraform" {
		t.Skip("OpenTofu does not take over templates")
	}
}

// whole brings the lab up and checks that it is then as from an undisturbed run.
func (r *rig) whole() {
	r.t.Helper()
	r.faults(pveapi.Faults{})
	r.mustUp()
	if again, err := r.plan(); err != nil || len(again) > 0 {
		r.t.Errorf("planned once more:\n%s\n%v", strings.Join(again, "\n"), err)
	}
	vms, err := r.vms()
	if err != nil {
		r.t.Fatal(err)
	}
	want := map[int]listedVM{
		201:  {201, "server-1", "pve1", "running", "k3lab"},
		202:  {202, "server-2", "pve2", "running", "k3lab"},
		203:  {203, "agent-1", "pve2", "running", "k3lab"},
		206:  {206, "balancer", "pve1", "running", "k3lab"},
		9001: {9001, "k3lab-template-9001", "pve1", "stopped", "k3lab"},
		9002: {9002, "k3lab-template-9002", "pve2", "stopped", "k3lab"},
	}
	if diff := cmp.Diff(want, vms); diff != "" {
		r.t.Errorf("machines (-want +got):\n%s", diff)
	}
	for id, node := range map[int]string{201: "pve1", 203: "pve2"} {
		var config struct {
			Cores           int
			Memory          any
			Scsi0, Scsi1    string
			CIUser          string
			IPConfig0, Tags string
		}
		r.api(http.MethodGet, "/nodes/"+node+"/qemu/"+strconv.Itoa(id)+"/config", nil, &config)
		if config.CIUser != "k3lab" || !strings.Contains(config.Scsi0, "size=8G") || !strings.Contains(config.IPConfig0, "192.0.2.1") ||
			!strings.Contains(config.Tags, "k3lab") || (id == 203) != strings.Contains(config.Scsi1, "serial=DATA01") {
			r.t.Errorf("vm %d is not as an undisturbed run makes it: %+v", id, config)
		}
	}
}

func TestForeignVMIsNotTouched(t *testing.T) {
	r := newRig(t)
	r.task("pve1", http.MethodPost, "/nodes/pve1/qemu", url.Values{"vmid": {"201"}, "name": {"mine"}})
	_, err := r.up(t.Context())
	want := `server-1: VM ID 201 is taken by VM "mine" on pve1, which is not in pool k3lab under the name "server-1" (try: choose another vmid, or remove that VM in Proxmox)`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	vms, err := r.vms()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[int]listedVM{201: {VMID: 201, Name: "mine", Node: "pve1", Status: "stopped"}}, vms); diff != "" {
		t.Errorf("VMs (-want +got):\n%s", diff)
	}
}

func TestPoolOfTheUserIsUsed(t *testing.T) {
	r := newRig(t)
	r.api(http.MethodPost, "/pools", url.Values{"poolid": {"k3lab"}}, nil)
	r.whole()
}

// TestLostState plans without the state there was, as on another computer.
func TestLostState(t *testing.T) {
	r := newRig(t)
	onlyTerraform(t)
	r.mustUp()
	for _, name := range []string{"terraform.tfstate", "terraform.tfstate.backup"} {
		if err := os.Remove(filepath.Join(r.dir, "terraform", name)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	var before, after struct{ Net0 string }
	r.api(http.MethodGet, "/nodes/pve1/qemu/201/config", nil, &before)
	r.whole()
	r.api(http.MethodGet, "/nodes/pve1/qemu/201/config", nil, &after)
	if before != after {
		t.Errorf("network device was %s, is %s", before.Net0, after.Net0)
	}
	// What was taken over can be removed like what was made.
	r.settings.ImageDate, r.settings.Checksum = "20260301", strings.Repeat("cd", 64)
	r.mustUp()
	r.destroy()
}

func TestStalePlan(t *testing.T) {
	r := newRig(t)
	slow := step.Sequence{infra.Provision(r.terraform())}
	plan, err := slow.Plan(t.Context(), r.events)
	if err != nil {
		t.Fatal(err)
	}
	// Somebody applies by hand between plan and apply; the saved plan is kept aside.
	saved := filepath.Join(r.dir, ".k3lab", "infra")
	aside := filepath.Join(r.dir, "aside")
	if err := os.Rename(saved, aside); err != nil {
		t.Fatal(err)
	}
	r.mustUp()
	if err := os.Rename(aside, saved); err != nil {
		t.Fatal(err)
	}
	err = slow.Apply(t.Context(), r.events, plan)
	want := "terraform: the state has changed since the plan was made (try: the same command again)"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestLocked holds the state as another terraform does, then leaves behind what
// a killed one leaves.
func TestLocked(t *testing.T) {
	r := newRig(t)
	r.mustUp()
	state, err := os.OpenFile(filepath.Join(r.dir, "terraform", "terraform.tfstate"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(state.Fd(), unix.F_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	r.write("terraform/.terraform.tfstate.lock.info", `{"ID":"11111111-2222-3333-4444-555555555555","Operation":"OperationTypeApply","Info":"","Who":"me@pc","Version":"1.11.4","Created":"2026-11-23T02:00:00.5Z","Path":"terraform.tfstate"}`, 0o644)
	_, err = r.plan()
	want := "terraform state: locked by me@pc (terraform apply since 2026-11-23 02:00:00) (try: wait for it to end; if it was killed: terraform -chdir=terraform force-unlock 11111111-2222-3333-4444-555555555555)"
	if err == nil || err.Error() != want || fault.KindOf(err) != fault.Locked {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if err := state.Close(); err != nil { // the kernel takes the lock of a killed process away
		t.Fatal(err)
	}
	if again, err := r.plan(); err != nil || len(again) > 0 {
		t.Errorf("after the lock is gone: %v, %v", again, err)
	}
}
