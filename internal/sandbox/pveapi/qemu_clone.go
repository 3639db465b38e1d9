package pveapi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// clonePlan is what a clone request comes down to.
type clonePlan struct {
	from, to int
	snapshot string
	full     bool
	storage  string // where full copies go; "" is where they are
	format   string
	set      map[string]string
}

func (s *Server) cloneVM(r *request) (any, error) {
	if err := r.require("newid"); err != nil {
		return nil, err
	}
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	p, err := s.planClone(vm, r)
	if err != nil {
		return nil, err
	}
	target := r.get("target")
	if target == "" {
		target = vm.Node
	}
	clone := newVM(p.to, vm.Node)
	clone.Pool = r.get("pool")
	s.state.VMs[p.to] = clone
	clone.Lock = "clone"
	return s.fork(r, job{
		typ: "qmclone", id: vmidText(vm.VMID), vmid: p.to, lock: "clone", exclusive: true,
		do: func(ctx context.Context, w *worker) error {
			w.log("creating a clone of VM %d with ID %d", p.from, p.to)
			copyDisks := false
			err := s.update(func(st *State) error {
				src := st.VMs[p.from]
				if src == nil {
					return noConfig(r.node(), p.from)
				}
				copyDisks = src.Started
				return s.fillClone(clone, src, p)
			})
			if err != nil {
				return fmt.Errorf("clone failed: %w", err)
			}
			if copyDisks {
				if err := s.opts.Disks.Copy(ctx, p.from, p.to); err != nil {
					return fmt.Errorf("clone failed: %w", errors.Join(err, s.deleteDisks(p.to)))
				}
			}
			return s.update(func(*State) error {
				clone.Started, clone.Node = copyDisks, target
				return nil
			})
		},
		undo: func(st *State) { st.forget(p.to) },
	}), nil
}

// planClone checks what can be checked before the task begins.
func (s *Server) planClone(vm *VM, r *request) (clonePlan, error) {
	p := clonePlan{from: vm.VMID, snapshot: r.get("snapname"), storage: r.get("storage"), format: r.get("format"), set: map[string]string{}}
	var err error
	if p.to, err = s.checkNewVMID("newid", r.get("newid")); err != nil {
		return p, err
	}
	if err := s.checkPool(r.get("pool")); err != nil {
		return p, err
	}
	if err := s.checkLock(vm); err != nil {
		return p, err
	}
	if p.snapshot != "" && vm.Snapshots[p.snapshot] == nil {
		return p, failed("snapshot '%s' does not exist", p.snapshot)
	}
	p.full = !vm.template()
	if r.has("full") {
		p.full = r.flag("full")
	}
	if !p.full && p.storage != "" {
		return p, failed("parameter 'storage' not allowed for linked clones")
	}
	if !p.full && p.format != "" {
		return p, failed("parameter 'format' not allowed for linked clones")
	}
	if err := s.checkCloneTarget(vm, p, r.get("target")); err != nil {
		return p, err
	}
	for _, k := range []string{"name", "description"} {
		if r.has(k) {
			p.set[k] = r.get(k)
		}
	}
	if bad := checkValues(p.set); len(bad) > 0 {
		return p, badParams(bad)
	}
	if s.state.VMs[p.to] != nil {
		return p, failed("unable to create VM %d: config file already exists", p.to)
	}
	if !p.full {
		return p, s.checkLinked(vm, p)
	}
	return p, nil
}

// checkCloneTarget allows another node only when all disks are on shared storages.
func (s *Server) checkCloneTarget(vm *VM, p clonePlan, target string) error {
	h, err := s.hypervisor(vm.Node)
	if err != nil {
		return err
	}
	if p.storage != "" {
		st, err := h.storage(p.storage)
		if err != nil {
			return err
		}
		if !st.holds("images") {
			return badParam("storage", "storage '%s' does not support vm images", p.storage)
		}
	}
	if target == "" || target == vm.Node {
		return nil
	}
	if _, err := s.hypervisor(target); err != nil {
		return failed("no such cluster node '%s'", target)
	}
	for _, k := range vm.diskKeys() {
		name, _, _ := strings.Cut(vm.Config[k], ":")
		if p.storage != "" {
			name = p.storage
		}
		st, err := h.storage(name)
		if err != nil {
			return err
		}
		if !st.Shared && p.storage != "" {
			return failed("can't clone to non-shared storage '%s'", name)
		}
		if !st.Shared {
			return failed("can't clone VM to node '%s' (VM uses local storage)", target)
		}
	}
	return nil
}

// checkLinked allows linked clones of base images and of snapshots only.
func (s *Server) checkLinked(vm *VM, p clonePlan) error {
	for _, k := range vm.diskKeys() {
		d, err := parseProps(vm.Config[k], "file")
		if err != nil {
			return failed("unable to parse drive options for '%s'", k)
		}
		base := d["file"][strings.LastIndexAny(d["file"], ":/")+1:]
		if !strings.HasPrefix(base, "base-") && p.snapshot == "" {
			return failed("Linked clone feature is not supported for '%s' (%s)", d["file"], k)
		}
	}
	return nil
}

// fillClone gives the clone its configuration and its disks.
func (s *Server) fillClone(clone, src *VM, p clonePlan) error {
	conf := src.Config
	if snap := src.Snapshots[p.snapshot]; snap != nil {
		conf = snap.Config
	}
	for _, k := range slices.SortedFunc(maps.Keys(conf), compareOptions) {
		v := conf[k]
		switch {
		case k == "template" || strings.HasPrefix(k, "unused"):
		case isDisk(k) && (!isCDROM(v) || isCloudInit(v)):
			if err := s.cloneDisk(clone, k, v, p); err != nil {
				return err
			}
		default:
			clone.Config[k] = v
		}
	}
	if err := clone.newMACs(); err != nil {
		return err
	}
	clone.Config["smbios1"] = withUUID(clone.Config["smbios1"])
	if clone.Config["vmgenid"] != "" {
		clone.Config["vmgenid"] = newUUID()
	}
	if p.set["name"] == "" {
		clone.Config["name"] = "Copy-of-VM-" + src.Config["name"]
		if src.Config["name"] == "" {
			clone.Config["name"] = fmt.Sprintf("Copy-of-VM-%d", src.VMID)
		}
	}
	s.state.VMFW[clone.VMID] = s.state.VMFW[src.VMID].clone()
	return s.setOptions(clone, p.set)
}

func (s *Server) cloneDisk(clone *VM, key, value string, p clonePlan) error {
	d, err := parseProps(value, "file")
	if err != nil {
		return failed("unable to parse drive options for '%s'", key)
	}
	old, st, err := s.volume(clone.Node, d["file"])
	if err != nil {
		return err
	}
	if old == nil {
		return failed("volume '%s' does not exist", d["file"])
	}
	if p.storage != "" {
		h, err := s.hypervisor(clone.Node)
		if err != nil {
			return err
		}
		if st, err = h.storage(p.storage); err != nil {
			return err
		}
	}
	n := newVolume{vmid: clone.VMID, size: old.Size, format: p.format}
	if size, err := parseSize(d["size"]); err == nil && size > 0 {
		n.size = size // a snapshot may have been smaller
	}
	if n.format == "" && st.files() {
		n.format = old.Format
	}
	if isCloudInit(value) {
		n.suffix = "cloudinit"
	} else if !p.full {
		n.parent, n.format = old.Volid, old.Format
	}
	v, err := s.allocate(clone.Node, st, n)
	if err != nil {
		return err
	}
	d["file"] = v.Volid
	clone.Config[key] = d.print("file")
	return nil
}

// makeTemplate turns a stopped VM without snapshots into a template: its disks
// become base images.
func (s *Server) makeTemplate(r *request) (any, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	if err := s.checkLock(vm); err != nil {
		return nil, err
	}
	switch {
	case len(vm.Snapshots) > 0:
		return nil, failed("unable to create template, because VM contains snapshots")
	case vm.template():
		return nil, failed("you can't convert a template to a template")
	case vm.Running:
		return nil, failed("you can't convert a VM to template if VM is running")
	}
	return s.fork(r, job{typ: "qmtemplate", id: vmidText(vm.VMID), vmid: vm.VMID, exclusive: true, do: func(context.Context, *worker) error {
		return s.update(func(st *State) error {
			vm.Config["template"] = "1"
			for _, k := range vm.diskKeys() {
				d, err := parseProps(vm.Config[k], "file")
				if err != nil {
					return failed("unable to parse drive options for '%s'", k)
				}
				v, _, err := s.volume(vm.Node, d["file"])
				if err != nil {
					return err
				}
				if v == nil {
					return failed("volume '%s' does not exist", d["file"])
				}
				st.rename(v, baseName(v.Volid))
				d["file"] = v.Volid
				vm.Config[k] = d.print("file")
			}
			return nil
		})
	}}), nil
}
