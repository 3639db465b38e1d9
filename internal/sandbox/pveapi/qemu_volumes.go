package pveapi

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

func qemuDiskRoutes() []route {
	const vm = "/nodes/{node}/qemu/{vmid}"
	return []route{
		{method: "PUT", path: vm + "/resize", privilege: "VM.Config.Disk", handle: (*Server).resizeDisk},
		{method: "POST", path: vm + "/move_disk", privilege: "VM.Config.Disk", handle: (*Server).moveDisk},
		{method: "PUT", path: vm + "/unlink", privilege: "VM.Config.Disk", exclusive: true, handle: (*Server).unlinkDisks},
	}
}

// disk returns a drive of the VM and its volume.
func (s *Server) disk(vm *VM, key string) (props, *Volume, *Storage, error) {
	value, ok := vm.Config[key]
	if !ok || !isDisk(key) && !strings.HasPrefix(key, "unused") {
		return nil, nil, nil, failed("disk '%s' does not exist", key)
	}
	d, err := parseProps(value, "file")
	if err != nil || d["file"] == "" {
		return nil, nil, nil, failed("disk '%s' has no associated volume", key)
	}
	v, st, err := s.volume(vm.Node, d["file"])
	if err != nil {
		return nil, nil, nil, err
	}
	if v == nil {
		return nil, nil, nil, failed("volume '%s' does not exist", d["file"])
	}
	return d, v, st, nil
}

// resizeDisk grows a disk, of a running VM as well.
func (s *Server) resizeDisk(r *request) (any, error) {
	if err := r.require("disk", "size"); err != nil {
		return nil, err
	}
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	if !regexp.MustCompile(`^\+?\d+(\.\d+)?[KMGT]?$`).MatchString(r.get("size")) {
		return nil, badParam("size", "value does not match the regex pattern")
	}
	id, key := vm.VMID, r.get("disk")
	return s.fork(r, job{typ: "resize", id: vmidText(id), vmid: id, exclusive: true, do: func(context.Context, *worker) error {
		return s.update(func(st *State) error {
			vm := st.VMs[id]
			if vm == nil {
				return noConfig(r.node(), id)
			}
			return s.resize(vm, key, r.get("size"), r.get("digest"))
		})
	}}), nil
}

func (s *Server) resize(vm *VM, key, size, digest string) error {
	if digest != "" && digest != vm.digest() {
		return failed("checksum mismatch (file change by other user?)")
	}
	if err := s.checkLock(vm); err != nil {
		return err
	}
	d, v, st, err := s.disk(vm, key)
	if err != nil {
		return err
	}
	if isCDROM(vm.Config[key]) {
		return failed("you can't resize a cdrom")
	}
	n, err := parseSize(strings.TrimPrefix(size, "+"))
	if err != nil {
		return err
	}
	if strings.HasPrefix(size, "+") {
		n += v.Size
	}
	switch {
	case n < v.Size:
		return failed("shrinking disks is not supported")
	case n == v.Size:
		return nil
	case s.state.used(vm.Node, st)+n-v.Size > st.SizeBytes*overcommit:
		return failed("unable to resize: no space left on storage '%s'", st.Name)
	}
	v.Size = n
	d["size"] = formatSize(n)
	vm.Config[key] = d.print("file")
	return nil
}

// moveDisk copies a disk to another storage; the source is kept as unused, or
// deleted on request.
func (s *Server) moveDisk(r *request) (any, error) {
	if err := r.require("disk", "storage"); err != nil {
		return nil, err
	}
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	if err := s.checkLock(vm); err != nil {
		return nil, err
	}
	key := r.get("disk")
	_, v, from, err := s.disk(vm, key)
	if err != nil {
		return nil, err
	}
	if isCDROM(vm.Config[key]) {
		return nil, failed("you can't move a cdrom")
	}
	h, err := s.hypervisor(vm.Node)
	if err != nil {
		return nil, err
	}
	to, err := h.storage(r.get("storage"))
	if err != nil {
		return nil, err
	}
	if !to.holds("images") {
		return nil, badParam("storage", "storage '%s' does not support vm images", to.Name)
	}
	format := r.get("format")
	if from.Name == to.Name && (format == "" || format == v.Format) {
		return nil, failed("you can't move to the same storage with same format")
	}
	if r.flag("delete") && s.inSnapshot(vm, v.Volid) != nil {
		return nil, failed("you can't move a disk with snapshots and delete the source")
	}
	id, remove := vm.VMID, r.flag("delete")
	return s.fork(r, job{typ: "qmmove", id: vmidText(id), vmid: id, exclusive: true, do: func(_ context.Context, w *worker) error {
		w.log("create full clone of drive %s (%s)", key, v.Volid)
		return s.update(func(st *State) error {
			vm := st.VMs[id]
			if vm == nil {
				return noConfig(r.node(), id)
			}
			return s.move(vm, key, to, format, remove)
		})
	}}), nil
}

func (s *Server) move(vm *VM, key string, to *Storage, format string, remove bool) error {
	d, old, _, err := s.disk(vm, key)
	if err != nil {
		return fmt.Errorf("storage migration failed: %w", err)
	}
	v, err := s.allocate(vm.Node, to, newVolume{vmid: vm.VMID, format: format, size: old.Size})
	if err != nil {
		return fmt.Errorf("storage migration failed: %w", err)
	}
	if vm.template() {
		s.state.rename(v, baseName(v.Volid))
	}
	s.detach(vm, key, v.Volid) // the source becomes unused
	d["file"] = v.Volid
	vm.Config[key] = d.print("file")
	if !remove {
		return nil
	}
	for _, k := range sortedKeys(vm.Config) {
		if strings.HasPrefix(k, "unused") && vm.Config[k] == old.Volid {
			delete(vm.Config, k)
		}
	}
	return s.state.free(vm.Node, old.Volid)
}

// unlinkDisks takes drives off a VM, and with force deletes their volumes.
func (s *Server) unlinkDisks(r *request) (any, error) {
	if err := r.require("idlist"); err != nil {
		return nil, err
	}
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	r.params = map[string]string{"delete": r.get("idlist"), "force": r.get("force")}
	return nil, s.changeConfig(vm, r)
}
