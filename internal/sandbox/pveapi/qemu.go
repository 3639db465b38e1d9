package pveapi

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
)

func qemuRoutes() []route {
	const vm = "/nodes/{node}/qemu/{vmid}"
	return []route{
		{method: "GET", path: "/nodes/{node}/qemu", privilege: "VM.Audit", handle: (*Server).listVMs},
		{method: "POST", path: "/nodes/{node}/qemu", privilege: "VM.Allocate", handle: (*Server).createVM},
		{method: "GET", path: vm, privilege: "VM.Audit", handle: vmIndex},
		{method: "DELETE", path: vm, privilege: "VM.Allocate", handle: (*Server).deleteVM},
		{method: "GET", path: vm + "/config", privilege: "VM.Audit", handle: (*Server).getConfig},
		{method: "PUT", path: vm + "/config", privilege: "VM.Config.Options", exclusive: true, handle: (*Server).putConfig},
		{method: "POST", path: vm + "/config", privilege: "VM.Config.Options", handle: (*Server).postConfig},
		{method: "GET", path: vm + "/pending", privilege: "VM.Audit", handle: (*Server).getPending},
		{method: "GET", path: vm + "/cloudinit", privilege: "VM.Audit", handle: (*Server).cloudInitPending},
		{method: "PUT", path: vm + "/cloudinit", privilege: "VM.Config.Cloudinit", exclusive: true, handle: (*Server).regenerateCloudInit},
		{method: "POST", path: vm + "/clone", privilege: "VM.Clone", handle: (*Server).cloneVM},
		{method: "POST", path: vm + "/template", privilege: "VM.Allocate", handle: (*Server).makeTemplate},
		{method: "GET", path: vm + "/migrate", privilege: "VM.Migrate", handle: (*Server).migratePreconditions},
		{method: "POST", path: vm + "/migrate", privilege: "VM.Migrate", handle: (*Server).migrateVM},
		{method: "POST", path: "/nodes/{node}/vzdump", privilege: "VM.Backup", handle: (*Server).vzdump},
	}
}

// noConfig is the answer for a VM that is not on that node.
func noConfig(node string, vmid int) error {
	return failed("Configuration file 'nodes/%s/qemu-server/%d.conf' does not exist", node, vmid)
}

// vmid is the VM the path names, 0 when it names none.
func (r *request) vmid() int {
	n, err := strconv.Atoi(r.path("vmid"))
	if err != nil {
		return 0
	}
	return n
}

// vm is the VM the path names, on the node it names.
func (s *Server) vm(r *request) (*VM, error) {
	id := r.vmid()
	if id < 100 {
		return nil, badParam("vmid", "invalid format - value does not look like a valid VM ID")
	}
	vm := s.state.VMs[id]
	if vm == nil || vm.Node != r.node() {
		return nil, noConfig(r.node(), id)
	}
	s.reconcile(vm)
	return vm, nil
}

// lockOf is what the VM's configuration is locked with, by a task or by a
// fault rule.
func (s *Server) lockOf(vm *VM) string {
	if l := s.faults.Locks[vm.VMID]; l != "" {
		return l
	}
	return vm.Lock
}

// checkLock fails while the VM's configuration is locked.
func (s *Server) checkLock(vm *VM) error {
	if l := s.lockOf(vm); l != "" {
		return failed("VM is locked (%s)", l)
	}
	return nil
}

func vmIndex(s *Server, r *request) (any, error) {
	if _, err := s.vm(r); err != nil {
		return nil, err
	}
	out := []object{}
	for _, n := range []string{"agent", "cloudinit", "config", "firewall", "migrate", "pending", "resize", "snapshot", "status", "unlink"} {
		out = append(out, object{"subdir": n})
	}
	return out, nil
}

func (s *Server) listVMs(r *request) (any, error) {
	out := []object{}
	for _, id := range s.state.vmids() {
		if vm := s.state.VMs[id]; vm.Node == r.node() {
			o := s.brief(vm)
			delete(o, "node")
			out = append(out, o)
		}
	}
	return out, nil
}

// brief is what lists and the status say of a VM.
func (s *Server) brief(vm *VM) object {
	s.reconcile(vm)
	o := object{
		"vmid": vm.VMID, "name": vm.name(), "status": "stopped", "node": vm.Node,
		"cpus": vm.cpus(), "maxmem": int64(vm.memoryMiB()) << 20, "maxdisk": vm.bootDiskBytes(),
		"cpu": 0, "mem": 0, "disk": 0, "diskread": 0, "diskwrite": 0, "netin": 0, "netout": 0, "uptime": 0,
	}
	if vm.Running {
		o["status"] = "running"
		o["mem"] = int64(vm.memoryMiB()) << 19 // half of it, since nobody measures
		o["uptime"] = max(1, s.now()-vm.StartedAt)
		o["pid"] = 100000 + vm.VMID
	}
	if vm.template() {
		o["template"] = 1
	}
	if t := vm.Config["tags"]; t != "" {
		o["tags"] = t
	}
	if l := s.lockOf(vm); l != "" {
		o["lock"] = l
	}
	return o
}

func (vm *VM) cpus() int {
	cores, sockets := 1, 1
	if n, err := strconv.Atoi(vm.Config["cores"]); err == nil {
		cores = n
	}
	if n, err := strconv.Atoi(vm.Config["sockets"]); err == nil {
		sockets = n
	}
	return cores * sockets
}

// bootDiskBytes is the size of the disk the VM boots from.
func (vm *VM) bootDiskBytes() int64 {
	keys := vm.diskKeys()
	if len(keys) == 0 {
		return 0
	}
	return vm.diskBytes(vm.bootDisk(keys))
}

// bootDisk is the first of the keys in the boot order, else the first of all.
func (vm *VM) bootDisk(keys []string) string {
	if p, err := parseProps(vm.Config["boot"], "legacy"); err == nil {
		for _, dev := range splitList(p["order"]) {
			if slices.Contains(keys, dev) {
				return dev
			}
		}
	}
	if b := vm.Config["bootdisk"]; slices.Contains(keys, b) {
		return b
	}
	return keys[0]
}

func (vm *VM) diskBytes(key string) int64 {
	d, err := parseProps(vm.Config[key], "file")
	if err != nil {
		return 0
	}
	n, err := parseSize(d["size"])
	if err != nil {
		return 0
	}
	return n
}

// resource is a VM in /cluster/resources and in pools.
func (s *Server) resource(vm *VM) object {
	o := s.brief(vm)
	delete(o, "pid")
	o["id"], o["type"], o["maxcpu"] = fmt.Sprintf("qemu/%d", vm.VMID), "qemu", o["cpus"]
	delete(o, "cpus")
	if _, ok := o["template"]; !ok {
		o["template"] = 0
	}
	if vm.Pool != "" {
		o["pool"] = vm.Pool
	}
	return o
}

// checkNewVMID refuses identifiers that are taken or out of range.
func (s *Server) checkNewVMID(param, text string) (int, error) {
	id, err := strconv.Atoi(text)
	if err != nil || id < 100 || id > 999999999 {
		return 0, badParam(param, "invalid format - value does not look like a valid VM ID")
	}
	return id, nil
}

func (s *Server) checkPool(id string) error {
	if id != "" && s.state.Pools[id] == nil {
		return failed("pool '%s' does not exist", id)
	}
	return nil
}

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
