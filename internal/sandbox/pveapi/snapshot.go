package pveapi

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"
)

func snapshotRoutes() []route {
	const snap = "/nodes/{node}/qemu/{vmid}/snapshot"
	return []route{
		{method: "GET", path: snap, privilege: "VM.Audit", handle: (*Server).listSnapshots},
		{method: "POST", path: snap, privilege: "VM.Snapshot", handle: (*Server).createSnapshot},
		{method: "GET", path: snap + "/{snapname}", privilege: "VM.Snapshot", handle: snapshotIndex},
		{method: "DELETE", path: snap + "/{snapname}", privilege: "VM.Snapshot", handle: (*Server).deleteSnapshot},
		{method: "GET", path: snap + "/{snapname}/config", privilege: "VM.Snapshot", handle: (*Server).snapshotConfig},
		{method: "PUT", path: snap + "/{snapname}/config", privilege: "VM.Snapshot", handle: (*Server).changeSnapshot},
		{method: "POST", path: snap + "/{snapname}/rollback", privilege: "VM.Snapshot.Rollback", handle: (*Server).rollback},
	}
}

// snapshot is the VM and the snapshot of it the path names.
func (s *Server) snapshot(r *request) (*VM, *Snapshot, string, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, nil, "", err
	}
	name := r.path("snapname")
	snap := vm.Snapshots[name]
	if snap == nil {
		return nil, nil, "", failed("snapshot '%s' does not exist", name)
	}
	return vm, snap, name, nil
}

func (s *Server) listSnapshots(r *request) (any, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	names := sortedNames(vm.Snapshots)
	slices.SortStableFunc(names, func(a, b string) int { return int(vm.Snapshots[a].Time - vm.Snapshots[b].Time) })
	out := []object{}
	for _, n := range names {
		snap := vm.Snapshots[n]
		o := object{"name": n, "description": snap.Description, "snaptime": snap.Time, "vmstate": 0}
		if snap.Parent != "" {
			o["parent"] = snap.Parent
		}
		out = append(out, o)
	}
	now := object{"name": "current", "description": "You are here!", "digest": vm.digest(), "running": 0}
	if vm.Running {
		now["running"] = 1
	}
	if vm.Parent != "" {
		now["parent"] = vm.Parent
	}
	return append(out, now), nil
}

func snapshotIndex(s *Server, r *request) (any, error) {
	if _, _, _, err := s.snapshot(r); err != nil {
		return nil, err
	}
	return []object{{"cmd": "rollback"}, {"cmd": "config"}}, nil
}

func (s *Server) snapshotConfig(r *request) (any, error) {
	_, snap, _, err := s.snapshot(r)
	if err != nil {
		return nil, err
	}
	o := answerConfig(snap.Config)
	o["snaptime"], o["description"] = snap.Time, snap.Description
	if snap.Parent != "" {
		o["parent"] = snap.Parent
	}
	return o, nil
}

func (s *Server) changeSnapshot(r *request) (any, error) {
	_, snap, _, err := s.snapshot(r)
	if err != nil {
		return nil, err
	}
	if r.has("description") {
		snap.Description = r.get("description")
	}
	return nil, nil
}

func (s *Server) createSnapshot(r *request) (any, error) {
	if err := r.require("snapname"); err != nil {
		return nil, err
	}
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	name := r.get("snapname")
	switch {
	case name == "current" || name == "pending":
		return nil, failed("unable to use snapshot name '%s' (reserved name)", name)
	case len(name) > 40 || !regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]+$`).MatchString(name):
		return nil, badParam("snapname", "invalid format - invalid configuration ID '%s'", name)
	}
	if err := s.checkLock(vm); err != nil {
		return nil, err
	}
	if vm.template() {
		return nil, failed("you can't take a snapshot if it's a template")
	}
	if vm.Snapshots[name] != nil {
		return nil, failed("snapshot name '%s' already used", name)
	}
	id, description := vm.VMID, r.get("description")
	return s.fork(r, job{typ: "qmsnapshot", id: vmidText(id), vmid: id, lock: "snapshot", exclusive: true, do: func(ctx context.Context, w *worker) error {
		w.log("snapshotting VM %d", id)
		if err := s.opts.Disks.Snapshot(ctx, id, name); err != nil {
			return err
		}
		return s.update(func(st *State) error {
			vm := st.VMs[id]
			conf := maps.Clone(vm.Config)
			maps.DeleteFunc(conf, func(k, _ string) bool { return strings.HasPrefix(k, "unused") })
			vm.Snapshots[name] = &Snapshot{Config: conf, Description: description, Time: s.now(), Parent: vm.Parent, Started: vm.Started}
			vm.Parent = name
			return nil
		})
	}}), nil
}

func (s *Server) deleteSnapshot(r *request) (any, error) {
	vm, _, name, err := s.snapshot(r)
	if err != nil {
		return nil, err
	}
	if err := s.checkLock(vm); err != nil {
		return nil, err
	}
	id := vm.VMID
	return s.fork(r, job{typ: "qmdelsnapshot", id: vmidText(id), vmid: id, lock: "snapshot-delete", exclusive: true, do: func(ctx context.Context, _ *worker) error {
		if err := s.opts.Disks.DeleteSnapshot(ctx, id, name); err != nil {
			return err
		}
		return s.update(func(st *State) error {
			vm := st.VMs[id]
			gone := vm.Snapshots[name]
			if gone == nil {
				return failed("snapshot '%s' does not exist", name)
			}
			delete(vm.Snapshots, name)
			for _, other := range vm.Snapshots { // children descend from its parent now
				if other.Parent == name {
					other.Parent = gone.Parent
				}
			}
			if vm.Parent == name {
				vm.Parent = gone.Parent
			}
			return nil
		})
	}}), nil
}

// rollback takes the VM back to a snapshot. Snapshots hold no memory, so the
// VM is stopped afterwards unless start is given.
func (s *Server) rollback(r *request) (any, error) {
	vm, _, name, err := s.snapshot(r)
	if err != nil {
		return nil, err
	}
	if err := s.checkLock(vm); err != nil {
		return nil, err
	}
	id, start := vm.VMID, r.flag("start")
	return s.fork(r, job{typ: "qmrollback", id: vmidText(id), vmid: id, lock: "rollback", exclusive: true, do: func(ctx context.Context, _ *worker) error {
		if err := s.stop(ctx, id); err != nil {
			return err
		}
		if err := s.opts.Disks.Rollback(ctx, id, name); err != nil {
			return err
		}
		err := s.update(func(st *State) error {
			vm := st.VMs[id]
			snap := vm.Snapshots[name]
			if snap == nil {
				return failed("snapshot '%s' does not exist", name)
			}
			vm.Config, vm.Parent = maps.Clone(snap.Config), name
			s.restoreSizes(vm)
			return nil
		})
		if err != nil || !start {
			return err
		}
		return s.start(ctx, id)
	}}), nil
}

// restoreSizes gives the volumes the sizes the configuration states.
func (s *Server) restoreSizes(vm *VM) {
	for _, k := range vm.diskKeys() {
		if _, v, _, err := s.disk(vm, k); err == nil {
			v.Size = vm.diskBytes(k)
		}
	}
}
