package pveapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

func (s *Server) createVM(r *request) (any, error) {
	if err := r.require("vmid"); err != nil {
		return nil, err
	}
	id, err := s.checkNewVMID("vmid", r.get("vmid"))
	if err != nil {
		return nil, err
	}
	if r.get("archive") != "" {
		return nil, &apiError{code: 501, msg: "restoring a backup archive is not part of the sandbox, whose archives hold no disk content"}
	}
	if err := s.checkPool(r.get("pool")); err != nil {
		return nil, err
	}
	set := r.configParams()
	if bad := checkValues(set); len(bad) > 0 {
		return nil, badParams(bad)
	}
	if old := s.state.VMs[id]; old != nil {
		return nil, failed("unable to create VM %d - VM %d already exists on node '%s'", id, id, old.Node)
	}
	vm := newVM(id, r.node())
	vm.Pool = r.get("pool")
	s.state.VMs[id] = vm
	start := r.flag("start")
	return s.fork(r, job{
		typ: "qmcreate", id: vmidText(id), vmid: id, lock: "create", exclusive: true,
		do: func(ctx context.Context, w *worker) error {
			err := s.update(func(*State) error {
				if err := s.setOptions(vm, set); err != nil {
					return fmt.Errorf("unable to create VM %d - %w", id, err)
				}
				vm.fillIn(s.now())
				return nil
			})
			if err != nil || !start {
				return err
			}
			w.log("Execute autostart")
			if err := s.start(ctx, id); err != nil {
				w.log("WARN: %v", err) // the VM has been made all the same
			}
			return nil
		},
		undo: func(st *State) { st.forget(id) },
	}), nil
}

// fillIn adds what Proxmox adds to a new VM by itself.
func (vm *VM) fillIn(now int64) {
	if vm.Config["boot"] == "" && vm.Config["bootdisk"] == "" {
		if order := vm.defaultBoot(); len(order) > 0 {
			vm.Config["boot"] = "order=" + strings.Join(order, ";")
		}
	}
	if !strings.Contains(vm.Config["smbios1"], "uuid=") {
		vm.Config["smbios1"] = withUUID(vm.Config["smbios1"])
	}
	if vm.Config["vmgenid"] == "" || vm.Config["vmgenid"] == "1" {
		vm.Config["vmgenid"] = newUUID()
	}
	vm.Config["meta"] = "creation-qemu=9.2.0,ctime=" + strconv.FormatInt(now, 10)
}

// defaultBoot is the first disk, the first CD-ROM and the first network card.
func (vm *VM) defaultBoot() []string {
	var disk, cdrom, card string
	keys := slices.SortedFunc(maps.Keys(vm.Config), compareOptions)
	for _, k := range keys {
		base, _, _ := indexed(k)
		switch {
		case isNet(k) && card == "":
			card = k
		case !isDisk(k) || base == "efidisk" || base == "tpmstate" || isCloudInit(vm.Config[k]):
		case isCDROM(vm.Config[k]) && cdrom == "":
			cdrom = k
		case !isCDROM(vm.Config[k]) && disk == "":
			disk = k
		}
	}
	return slices.DeleteFunc([]string{disk, cdrom, card}, func(k string) bool { return k == "" })
}

func newUUID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails, says crypto/rand
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// withUUID puts a new identifier into an smbios1 value.
func withUUID(smbios string) string {
	p, err := parseProps(smbios, "uuid")
	if err != nil {
		p = props{}
	}
	p["uuid"] = newUUID()
	return strings.TrimPrefix(p.print(""), ",")
}

// deleteVM removes a VM that is stopped, with its disks.
func (s *Server) deleteVM(r *request) (any, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	if err := s.checkDelete(vm); err != nil {
		return nil, err
	}
	id, node := vm.VMID, vm.Node
	return s.fork(r, job{typ: "qmdestroy", id: vmidText(id), vmid: id, exclusive: true, do: func(ctx context.Context, w *worker) error {
		err := s.update(func(st *State) error {
			vm := st.VMs[id]
			if vm == nil || vm.Node != node {
				return noConfig(node, id)
			}
			if err := s.checkDelete(vm); err != nil {
				return err
			}
			if err := s.checkLock(vm); err != nil {
				return err
			}
			if err := st.checkBases(vm); err != nil {
				return err
			}
			vm.Lock = "destroyed"
			return nil
		})
		if err != nil {
			return err
		}
		if err := s.opts.Disks.Delete(ctx, id); err != nil {
			return s.unlockAfter(id, "destroyed", err)
		}
		w.log("purging VM %d from related configurations..", id)
		return s.update(func(st *State) error {
			st.forget(id)
			return nil
		})
	}}), nil
}

func (s *Server) checkDelete(vm *VM) error {
	s.reconcile(vm)
	if vm.Config["protection"] == "1" {
		return failed("can't remove VM %d - protection mode enabled", vm.VMID)
	}
	if vm.Running {
		return failed("VM %d is running - destroy failed", vm.VMID)
	}
	return nil
}

// checkBases fails when another VM is a linked clone of this one's disks.
func (st *State) checkBases(vm *VM) error {
	for _, k := range slices.Sorted(maps.Keys(st.Volumes)) {
		c := st.Volumes[k]
		if c.Parent == "" || c.VMID == vm.VMID || c.Node != "" && c.Node != vm.Node {
			continue
		}
		if storage, _, _ := splitVolid(c.Parent); c.needsParent(storage) {
			for _, key := range vm.diskKeys() {
				if d, err := parseProps(vm.Config[key], "file"); err == nil && d["file"] == c.Parent {
					return failed("base volume '%s' is still in use by linked cloned", c.Parent)
				}
			}
		}
	}
	return nil
}

// needsParent says whether a linked clone dies with its base: its name then
// carries the base's.
func (v *Volume) needsParent(storage string) bool {
	_, base, _ := splitVolid(v.Parent)
	return strings.HasPrefix(v.Volid, storage+":"+base+"/")
}

// unlockAfter lifts a lock that a failed task has set, and returns err.
func (s *Server) unlockAfter(vmid int, lock string, err error) error {
	return errors.Join(err, s.update(func(st *State) error {
		if vm := st.VMs[vmid]; vm != nil && vm.Lock == lock {
			vm.Lock = ""
		}
		return nil
	}))
}
