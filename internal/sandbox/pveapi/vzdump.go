package pveapi

import (
	"context"
	"fmt"
	"strconv"
)

// vzdump makes backup archives of VMs on a storage. An archive of the sandbox
// records the VM's configuration and the size its disks have; it holds no
// content, and its notes say so.
func (s *Server) vzdump(r *request) (any, error) {
	ids := splitList(r.get("vmid"))
	if r.flag("all") {
		for _, id := range s.state.vmids() {
			if s.state.VMs[id].Node == r.node() {
				ids = append(ids, vmidText(id))
			}
		}
	}
	if len(ids) == 0 {
		return nil, badParam("vmid", "property is missing and it is not optional")
	}
	vms := make([]int, len(ids))
	for i, text := range ids {
		id, err := strconv.Atoi(text)
		if err != nil {
			return nil, badParam("vmid", "invalid format - value does not look like a valid VM ID")
		}
		vms[i] = id
	}
	h, err := s.hypervisor(r.node())
	if err != nil {
		return nil, err
	}
	name := r.get("storage")
	if name == "" {
		name = "local"
	}
	st, err := h.storage(name)
	if err != nil {
		return nil, err
	}
	if !st.holds("backup") {
		return nil, badParam("storage", "can't use storage '%s' for backups - wrong content type", name)
	}
	suffix, ok := map[string]string{"": "", "0": "", "zstd": ".zst", "1": ".lzo", "lzo": ".lzo", "gzip": ".gz"}[r.get("compress")]
	if !ok {
		return nil, badParam("compress", "value '%s' does not have a value in the enumeration '0, 1, gzip, lzo, zstd'", r.get("compress"))
	}
	j := job{typ: "vzdump", id: "", do: func(_ context.Context, w *worker) error {
		for _, id := range vms {
			if err := s.dump(w, r, id, st, suffix); err != nil {
				w.log("ERROR: Backup of VM %d failed - %v", id, err)
				return failed("job errors")
			}
		}
		return nil
	}}
	if len(vms) == 1 {
		j.id, j.vmid, j.exclusive = ids[0], vms[0], true
		vm := s.state.VMs[vms[0]]
		if vm == nil || vm.Node != r.node() {
			return nil, failed("unable to find VM '%d'", vms[0])
		}
		if s.lockOf(vm) == "" {
			j.lock = "backup"
		}
	}
	return s.fork(r, j), nil
}

func (s *Server) dump(w *worker, r *request, id int, st *Storage, suffix string) error {
	w.log("INFO: Starting Backup of VM %d (qemu)", id)
	return s.update(func(state *State) error {
		vm := state.VMs[id]
		if vm == nil || vm.Node != r.node() {
			return failed("unable to find VM '%d'", id)
		}
		if l := s.lockOf(vm); l != "" && l != "backup" {
			return failed("VM is locked (%s)", l)
		}
		var size int64
		for _, k := range vm.diskKeys() {
			size += vm.diskBytes(k)
		}
		now := s.opts.Clock().UTC()
		volid := fmt.Sprintf("%s:backup/vzdump-qemu-%d-%s.vma%s", st.Name, id, now.Format("2006_01_02-15_04_05"), suffix)
		notes := r.get("notes-template")
		if notes == "" {
			notes = vm.name()
		}
		v := &Volume{
			Node: st.home(vm.Node), Volid: volid, Content: "backup", Format: "vma" + suffix, Size: size, VMID: id,
			CTime: now.Unix(), Notes: notes + " (k3lab sandbox: an archive without disk content)", Protected: r.flag("protected"),
		}
		state.Volumes[volumeKey(v.Node, volid)] = v
		return nil
	})
}
