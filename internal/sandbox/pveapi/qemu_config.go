package pveapi

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// notConfig are parameters of create and update that are no options of the VM.
func notConfig() []string {
	return []string{
		"node", "vmid", "pool", "force", "start", "unique", "storage", "archive", "bwlimit", "live-restore", "import-working-storage",
		"delete", "revert", "digest", "skiplock", "background_delay", "lock",
	}
}

// configParams are those parameters of a call that are options of the VM.
func (r *request) configParams() map[string]string {
	p := maps.Clone(r.params)
	for _, k := range notConfig() {
		delete(p, k)
	}
	return p
}

// digest identifies a configuration.
func (vm *VM) digest() string { return digestOf(vm.Config) }

// answerConfig is a configuration as GET returns it.
func answerConfig(conf map[string]string) object {
	out := object{}
	for k, v := range conf {
		if n, err := strconv.Atoi(v); err == nil && integer(k) {
			out[k] = n
		} else {
			out[k] = v
		}
	}
	return out
}

func (s *Server) getConfig(r *request) (any, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	conf := vm.Config
	if r.flag("current") {
		conf = vm.current()
	}
	if name := r.get("snapshot"); name != "" {
		snap := vm.Snapshots[name]
		if snap == nil {
			return nil, failed("snapshot '%s' does not exist", name)
		}
		conf = snap.Config
	}
	out := answerConfig(conf)
	out["digest"] = vm.digest()
	if vm.Parent != "" {
		out["parent"] = vm.Parent
	}
	if l := s.lockOf(vm); l != "" {
		out["lock"] = l
	}
	return out, nil
}

// current is the configuration in effect: what waits for the next start of a
// running VM is not part of it.
func (vm *VM) current() map[string]string {
	out := maps.Clone(vm.Config)
	if !vm.Running || vm.Booted == nil {
		return out
	}
	for _, k := range vm.pendingKeys() {
		if old, had := vm.Booted[k]; had {
			out[k] = old
		} else {
			delete(out, k)
		}
	}
	return out
}

// pendingKeys lists options whose change waits for the next start.
func (vm *VM) pendingKeys() []string {
	if !vm.Running || vm.Booted == nil {
		return nil
	}
	var out []string
	both := maps.Clone(vm.Config)
	maps.Copy(both, vm.Booted)
	for _, k := range sortedKeys(both) {
		if !hotplugged(k) && vm.Config[k] != vm.Booted[k] {
			out = append(out, k)
		}
	}
	return out
}

func (s *Server) getPending(r *request) (any, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	now, next := answerConfig(vm.current()), answerConfig(vm.Config)
	waiting := vm.pendingKeys()
	both := maps.Clone(now)
	maps.Copy(both, next)
	out := []object{}
	for _, k := range slices.Sorted(maps.Keys(both)) {
		o := object{"key": k}
		if v, ok := now[k]; ok {
			o["value"] = v
		}
		if slices.Contains(waiting, k) {
			if v, ok := next[k]; ok {
				o["pending"] = v
			} else {
				o["delete"] = 1
			}
		}
		out = append(out, o)
	}
	return out, nil
}

// putConfig changes the configuration before it answers.
func (s *Server) putConfig(r *request) (any, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	return nil, s.changeConfig(vm, r)
}

// postConfig changes the configuration in a task.
func (s *Server) postConfig(r *request) (any, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	if err := s.checkLock(vm); err != nil {
		return nil, err
	}
	id := vm.VMID
	return s.fork(r, job{typ: "qmconfig", id: vmidText(id), vmid: id, exclusive: true, do: func(context.Context, *worker) error {
		return s.update(func(st *State) error {
			vm := st.VMs[id]
			if vm == nil {
				return noConfig(r.node(), id)
			}
			return s.changeConfig(vm, r)
		})
	}}), nil
}

// changeConfig applies the parameters of an update. On an error nothing has
// changed.
func (s *Server) changeConfig(vm *VM, r *request) error {
	if err := s.checkLock(vm); err != nil {
		return err
	}
	if d := r.get("digest"); d != "" && d != vm.digest() {
		return failed("checksum mismatch (file change by other user?)")
	}
	set, remove := r.configParams(), splitList(r.get("delete"))
	if len(set) == 0 && len(remove) == 0 && !r.has("revert") {
		return failed("no options specified")
	}
	for _, k := range remove {
		if !knownKey(k) {
			return badParam("delete", "unknown option '%s'", k)
		}
		if _, both := set[k]; both {
			return badParam("delete", "you can't use '-%s' and -delete %s' at the same time", k, k)
		}
	}
	undo := s.remember(vm)
	err := s.deleteOptions(vm, remove, r.flag("force"))
	if err == nil {
		err = s.setOptions(vm, set)
	}
	if err != nil {
		undo()
	}
	return err
}

// remember returns a function that restores the VM's configuration and the
// list of volumes to what they are now.
func (s *Server) remember(vm *VM) (undo func()) {
	conf, volumes := maps.Clone(vm.Config), maps.Clone(s.state.Volumes)
	return func() { vm.Config, s.state.Volumes = conf, volumes }
}

func (s *Server) deleteOptions(vm *VM, keys []string, force bool) error {
	for _, k := range keys {
		if _, has := vm.Config[k]; !has {
			continue
		}
		if vm.Config["protection"] == "1" && (isDisk(k) || strings.HasPrefix(k, "unused")) {
			return failed("can't remove drive '%s' - protection mode enabled", k)
		}
		switch {
		case strings.HasPrefix(k, "unused"), isDisk(k) && force:
			if err := s.destroyDisk(vm, k); err != nil {
				return err
			}
		case isDisk(k):
			s.detach(vm, k, "")
		default:
			delete(vm.Config, k)
		}
	}
	return nil
}

// setOptions keeps new values in the VM's configuration, as the API would
// return them.
func (s *Server) setOptions(vm *VM, set map[string]string) error {
	if bad := checkValues(set); len(bad) > 0 {
		return badParams(bad)
	}
	for _, k := range slices.SortedFunc(maps.Keys(set), compareOptions) {
		v := set[k]
		switch {
		case strings.HasPrefix(k, "unused"):
			return badParam(k, "unused disks cannot be set")
		case isDisk(k):
			if err := s.setDisk(vm, k, v); err != nil {
				return err
			}
		case isNet(k):
			if err := vm.setNet(k, v); err != nil {
				return err
			}
		case strings.HasPrefix(k, "ipconfig"):
			if err := checkIPConfig(v); err != nil {
				return badParam(k, "%v", err)
			}
			vm.Config[k] = v
		case v == "":
			delete(vm.Config, k)
		default:
			vm.Config[k] = canonical(k, v)
		}
	}
	return s.checkWhole(vm, set)
}

// compareOptions orders options so that disks come in order of their numbers
// and are named in that order; a template knows that it is one before them.
func compareOptions(a, b string) int {
	if a == "template" || b == "template" {
		return cmp.Compare(rank(a), rank(b))
	}
	_, _, ai := indexed(a)
	_, _, bi := indexed(b)
	if ai && bi {
		return compareKeys(a, b)
	}
	return strings.Compare(a, b)
}

func rank(key string) int {
	if key == "template" {
		return 0
	}
	return 1
}

// checkWhole checks what concerns several options at once.
func (s *Server) checkWhole(vm *VM, set map[string]string) error {
	memory, balloon := vm.memoryMiB(), vm.Config["balloon"]
	if n, err := strconv.Atoi(balloon); err == nil && n > memory {
		return failed("balloon value too large (must be smaller than assigned memory)")
	}
	if boot, ok := set["boot"]; ok {
		p, err := parseProps(boot, "legacy")
		if err != nil {
			return badParam("boot", "%v", err)
		}
		for _, dev := range splitList(p["order"]) {
			if _, ok := vm.Config[dev]; !ok {
				return failed("invalid bootorder: device '%s' does not exist'", dev)
			}
		}
	}
	return nil
}

func (vm *VM) memoryMiB() int {
	if n, err := strconv.Atoi(strings.TrimPrefix(vm.Config["memory"], "current=")); err == nil {
		return n
	}
	return 512
}
