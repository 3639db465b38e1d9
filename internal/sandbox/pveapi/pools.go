package pveapi

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

func poolRoutes() []route {
	return []route{
		{method: "GET", path: "/pools", handle: (*Server).listPools},
		{method: "POST", path: "/pools", privilege: "Pool.Allocate", handle: (*Server).createPool},
		{method: "PUT", path: "/pools", privilege: "Pool.Allocate", handle: (*Server).changePool},
		{method: "DELETE", path: "/pools", privilege: "Pool.Allocate", handle: (*Server).deletePool},
		{method: "GET", path: "/pools/{poolid}", privilege: "Pool.Audit", handle: (*Server).getPool},
		{method: "PUT", path: "/pools/{poolid}", privilege: "Pool.Allocate", handle: (*Server).changePool},
		{method: "DELETE", path: "/pools/{poolid}", privilege: "Pool.Allocate", handle: (*Server).deletePool},
	}
}

// pool finds the pool the path or the parameter names.
func (s *Server) pool(r *request) (string, *Pool, error) {
	id := r.path("poolid")
	if id == "" {
		id = r.get("poolid")
	}
	if p := s.state.Pools[id]; p != nil {
		return id, p, nil
	}
	return id, nil, failed("pool '%s' does not exist", id)
}

func (s *Server) listPools(r *request) (any, error) {
	out := []object{}
	for _, id := range slices.Sorted(maps.Keys(s.state.Pools)) {
		if want := r.get("poolid"); want != "" && want != id {
			continue
		}
		o := object{"poolid": id}
		if c := s.state.Pools[id].Comment; c != "" {
			o["comment"] = c
		}
		if r.has("poolid") {
			o["members"] = s.members(id)
		}
		out = append(out, o)
	}
	return out, nil
}

// members are the pool's VMs, then its storages on every node.
func (s *Server) members(id string) []object {
	out := []object{}
	for _, vmid := range s.state.vmids() {
		if vm := s.state.VMs[vmid]; vm.Pool == id {
			out = append(out, s.resource(vm))
		}
	}
	for _, name := range s.state.Pools[id].Storages {
		for i := range s.opts.Hypervisors {
			h := &s.opts.Hypervisors[i]
			if st, err := h.storage(name); err == nil {
				out = append(out, s.storageResource(h, st))
			}
		}
	}
	return out
}

func (s *Server) createPool(r *request) (any, error) {
	if err := r.require("poolid"); err != nil {
		return nil, err
	}
	id := r.get("poolid")
	if s.state.Pools[id] != nil {
		return nil, failed("create pool failed: pool '%s' already exists", id)
	}
	s.state.Pools[id] = &Pool{Comment: r.get("comment")}
	return nil, nil
}

func (s *Server) getPool(r *request) (any, error) {
	id, p, err := s.pool(r)
	if err != nil {
		return nil, err
	}
	o := object{"members": s.members(id)}
	if p.Comment != "" {
		o["comment"] = p.Comment
	}
	return o, nil
}

func (s *Server) changePool(r *request) (any, error) {
	id, p, err := s.pool(r)
	if err != nil {
		return nil, err
	}
	for _, text := range splitList(r.get("vms")) {
		if err := s.changeMember(r, id, text); err != nil {
			return nil, fmt.Errorf("update pool failed: %w", err)
		}
	}
	for _, name := range splitList(r.get("storage")) {
		has := slices.Contains(p.Storages, name)
		switch {
		case r.flag("delete") && !has:
			return nil, failed("update pool failed: Storage '%s' is not a pool member", name)
		case r.flag("delete"):
			p.Storages = slices.DeleteFunc(p.Storages, func(n string) bool { return n == name })
		case has:
			return nil, failed("update pool failed: Storage '%s' is already a pool member", name)
		default:
			p.Storages = append(p.Storages, name)
		}
	}
	if r.has("comment") {
		p.Comment = r.get("comment")
	}
	return nil, nil
}

func (s *Server) changeMember(r *request, pool, text string) error {
	vmid, err := strconv.Atoi(text)
	if err != nil {
		return badParam("vms", "invalid format - value does not look like a valid VM ID")
	}
	vm := s.state.VMs[vmid]
	switch {
	case r.flag("delete"):
		if vm == nil || vm.Pool != pool {
			return failed("VM %d is not a pool member", vmid)
		}
		vm.Pool = ""
		return nil
	case vm == nil:
		return failed("VM %d does not exist", vmid)
	case vm.Pool == pool:
		return failed("VM %d is already a pool member", vmid)
	case vm.Pool != "" && !r.flag("allow-move"):
		return failed("VM %d belongs already to pool '%s' and 'allow-move' is not set", vmid, vm.Pool)
	}
	vm.Pool = pool
	return nil
}

func (s *Server) deletePool(r *request) (any, error) {
	id, p, err := s.pool(r)
	if err != nil {
		return nil, err
	}
	for _, vmid := range s.state.vmids() {
		if s.state.VMs[vmid].Pool == id {
			return nil, failed("delete pool failed: pool '%s' is not empty (contains VM %d)", id, vmid)
		}
	}
	if len(p.Storages) > 0 {
		return nil, failed("delete pool failed: pool '%s' is not empty (contains storage %s)", id, p.Storages[0])
	}
	delete(s.state.Pools, id)
	return nil, nil
}

// splitList parts a list as Proxmox does: by comma, semicolon, space or NUL.
func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(",; \x00", r) })
}

// sortedKeys returns the keys of a configuration in order.
func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
