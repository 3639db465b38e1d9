package pveapi

import (
	"context"
	"maps"
	"slices"
	"strings"
)

// migratePreconditions says where the VM may go.
func (s *Server) migratePreconditions(r *request) (any, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	o := object{"running": 0, "local_resources": []string{}, "mapped-resources": []string{}, "has-dbus-vmstate": 0}
	if vm.Running {
		o["running"] = 1
	}
	disks := []object{}
	for _, v := range s.images(vm) {
		if v.Node == "" {
			continue
		}
		cdrom := 0
		if isCloudInit(v.Volid) {
			cdrom = 1
		}
		disks = append(disks, object{"volid": v.Volid, "size": v.Size, "cdrom": cdrom, "is_unused": 0, "is_vmstate": 0})
	}
	o["local_disks"] = disks
	allowed, refused := []string{}, object{}
	for i := range s.opts.Hypervisors {
		h := &s.opts.Hypervisors[i]
		if h.Name == vm.Node {
			continue
		}
		if missing := s.missingStorages(vm, h); len(missing) > 0 {
			refused[h.Name] = object{"unavailable_storages": missing}
		} else {
			allowed = append(allowed, h.Name)
		}
	}
	o["allowed_nodes"], o["not_allowed_nodes"] = allowed, refused
	return o, nil
}

// images lists the VM's volumes as it refers to them, in order.
func (s *Server) images(vm *VM) []*Volume {
	var out []*Volume
	for _, k := range slices.SortedFunc(maps.Keys(vm.Config), compareOptions) {
		if !isDisk(k) && !strings.HasPrefix(k, "unused") {
			continue
		}
		d, err := parseProps(vm.Config[k], "file")
		if err != nil || d["media"] == "cdrom" && !isCloudInit(vm.Config[k]) {
			continue
		}
		if v, _, err := s.volume(vm.Node, d["file"]); err == nil && v != nil {
			out = append(out, v)
		}
	}
	return out
}

func (s *Server) missingStorages(vm *VM, h *Hypervisor) []string {
	var out []string
	for _, v := range s.images(vm) {
		name, _, _ := splitVolid(v.Volid)
		if _, err := h.storage(name); err != nil && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// migrateVM moves a VM, running or not, to another hypervisor; its local disks
// go along to a storage of the same name, or to the one asked for.
func (s *Server) migrateVM(r *request) (any, error) {
	if err := r.require("target"); err != nil {
		return nil, err
	}
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	target, storage := r.get("target"), r.get("targetstorage")
	h, err := s.checkMigration(vm, r, target)
	if err != nil {
		return nil, err
	}
	if storage == "1" { // the same names, said explicitly
		storage = ""
	}
	if storage != "" {
		st, err := h.storage(storage)
		if err != nil {
			return nil, err
		}
		if !st.holds("images") {
			return nil, badParam("targetstorage", "storage '%s' does not support vm images", storage)
		}
	} else if missing := s.missingStorages(vm, h); len(missing) > 0 {
		return nil, failed("storage '%s' is not available on node '%s'", missing[0], target)
	}
	id, live := vm.VMID, vm.Running
	local := r.flag("with-local-disks")
	return s.fork(r, job{typ: "qmigrate", id: vmidText(id), vmid: id, lock: "migrate", exclusive: true, do: func(_ context.Context, w *worker) error {
		w.log("starting migration of VM %d to node '%s' (%s)", id, target, h.Address)
		err := s.update(func(st *State) error {
			vm := st.VMs[id]
			if vm == nil {
				return noConfig(r.node(), id)
			}
			if live && !local && slices.ContainsFunc(s.images(vm), func(v *Volume) bool { return v.Node != "" && !isCloudInit(v.Volid) }) {
				return failed("can't live migrate attached local disks without with-local-disks option")
			}
			return s.migrate(vm, h, storage)
		})
		if err != nil {
			w.log("ERROR: %v", err)
			return failed("migration aborted")
		}
		w.log("migration finished successfully")
		return nil
	}}), nil
}

func (s *Server) checkMigration(vm *VM, r *request, target string) (*Hypervisor, error) {
	if target == vm.Node {
		return nil, badParam("target", "target is local node.")
	}
	h, err := s.hypervisor(target)
	if err != nil {
		return nil, failed("no such cluster node '%s'", target)
	}
	if err := s.checkLock(vm); err != nil {
		return nil, err
	}
	if vm.Running && !r.flag("online") {
		return nil, failed("can't migrate running VM without --online")
	}
	return h, nil
}

// migrate moves the configuration and the volumes.
func (s *Server) migrate(vm *VM, h *Hypervisor, storage string) error {
	images := s.images(vm)
	for _, v := range images {
		if name, _, _ := splitVolid(v.Parent); v.Parent != "" && v.needsParent(name) {
			return failed("can't migrate '%s' as it's a clone of '%s'", v.Volid, v.Parent)
		}
	}
	if storage != "" && len(vm.Snapshots) > 0 {
		return failed("can't migrate VM with snapshots to another storage")
	}
	from := vm.Node
	renamed := map[string]string{}
	for _, v := range images {
		if v.Node == "" {
			continue
		}
		old := v.Volid
		delete(s.state.Volumes, volumeKey(v.Node, old))
		moved := *v
		name, _, _ := splitVolid(old)
		if storage != "" && storage != name {
			st, err := h.storage(storage)
			if err != nil {
				return err
			}
			n := newVolume{vmid: vm.VMID, size: v.Size}
			if isCloudInit(old) {
				n.suffix = "cloudinit"
			}
			nv, err := s.allocate(h.Name, st, n)
			if err != nil {
				return err
			}
			renamed[old] = nv.Volid
			continue
		}
		moved.Node, moved.Parent = h.Name, ""
		s.state.Volumes[volumeKey(h.Name, old)] = &moved
	}
	vm.Node = h.Name
	for _, k := range sortedKeys(vm.Config) {
		d, err := parseProps(vm.Config[k], "file")
		if err != nil || !isDisk(k) && !strings.HasPrefix(k, "unused") || renamed[d["file"]] == "" {
			continue
		}
		d["file"] = renamed[d["file"]]
		vm.Config[k] = d.print("file")
	}
	s.opts.Log("VM %d: migrated from %s to %s", vm.VMID, from, h.Name)
	return nil
}
