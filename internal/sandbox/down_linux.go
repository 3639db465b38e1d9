package sandbox

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/sandbox/machine"
)

// Down removes a sandbox with everything it made: its machines and what they
// stored, processes, cgroups, network, kernel settings, files. It does so
// whatever state the sandbox is in, and does nothing for one that is not there.
// The root image stays in its cache, for the next sandbox.
func Down(ctx context.Context, name string, r report.Reporter) error {
	p, err := placeOf(name)
	if err != nil {
		return err
	}
	if !p.exists() {
		r.Report(report.Event{Kind: report.Notice, Object: "sandbox " + name, Message: "is not there: nothing to remove"})
		return nil
	}
	unlock, err := lock(ctx, filepath.Dir(string(p)), r)
	if err != nil {
		return err
	}
	defer unlock()
	info, err := p.load()
	if err != nil || info == nil {
		// What cannot be read, or was not yet written, may have been anything.
		info = &Info{Name: name, Machines: Nspawn, Internet: true}
		if os.Geteuid() != 0 {
			info.Machines = None
		}
	}
	if info.Machines == Nspawn && os.Geteuid() != 0 {
		return fault.New(fault.Failed, "sandbox "+name, "sudo k3lab sandbox down "+name, "removing real machines needs root")
	}
	if err := stopDaemon(ctx, p); err != nil {
		return err
	}
	if info.Machines == Nspawn {
		if err := removeMachines(ctx, p, info.Internet, r); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(string(p)); err != nil {
		return fault.New(fault.Failed, string(p), "k3lab sandbox down "+name, "%w", err)
	}
	if info.Machines == Nspawn {
		if image := rootImage(func(string, ...any) {}); image.Made() {
			r.Report(report.Event{Kind: report.Notice, Object: "sandbox " + name, Message: "removed; the root image stays in " + image.CacheDir})
		}
	}
	return nil
}

// removeMachines removes what real machines have outside the state directory.
func removeMachines(ctx context.Context, p place, internet bool, r report.Reporter) error {
	groups, err := machine.NewGroups(p.tag())
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	machine.Thaw(bounded, p.machines())
	if err := groups.Remove(bounded, ""); err != nil {
		return err
	}
	if err := (machine.Network{Tag: p.tag(), Internet: internet}).Down(bounded); err != nil {
		return err
	}
	if err := machine.Detach(bounded, string(p)); err != nil {
		return err
	}
	return releaseKernel(ctx, p, r)
}

// Status describes a sandbox as it is found.
func Status(ctx context.Context, name string) (*State, error) {
	p, err := placeOf(name)
	if err != nil {
		return nil, err
	}
	info, err := p.load()
	if err != nil {
		return nil, err
	}
	if info == nil {
		return nil, notThere(name)
	}
	info.PID = 0
	if daemon, err := machine.ReadProcess(p.pidFile()); err == nil && daemon.Alive() {
		info.PID = daemon.PID
	}
	s := &State{Info: *info}
	var found []struct {
		VMID     any
		Name     string
		Node     string
		Status   string
		Template int
	}
	if err := ask(ctx, info, "/cluster/resources?type=vm", &found); err != nil {
		return s, nil //nolint:nilerr // that the API does not answer is what is told
	}
	s.Answers = true
	for _, v := range found {
		id, _ := v.VMID.(float64)
		s.VMs = append(s.VMs, VM{VMID: int(id), Name: v.Name, Hypervisor: v.Node, Status: v.Status, Template: v.Template == 1})
	}
	slices.SortFunc(s.VMs, func(a, b VM) int { return cmp.Compare(a.VMID, b.VMID) })
	return s, nil
}
