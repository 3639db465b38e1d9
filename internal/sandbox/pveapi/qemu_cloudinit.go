package pveapi

import (
	"slices"
	"strings"
)

// cloudInitKeys are the options the cloud-init drive is made of.
func cloudInitKey(key string) bool {
	if slices.Contains([]string{"cicustom", "cipassword", "citype", "ciupgrade", "ciuser", "nameserver", "searchdomain", "sshkeys"}, key) {
		return true
	}
	return strings.HasPrefix(key, "ipconfig")
}

// cloudInitPending lists the cloud-init options, with what the running machine
// does not know yet as pending.
func (s *Server) cloudInitPending(r *request) (any, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	now, next := vm.current(), vm.Config
	out := []object{}
	for _, k := range sortedKeys(next) {
		if !cloudInitKey(k) {
			continue
		}
		o := object{"key": k}
		if old, ok := now[k]; ok {
			o["old"] = old
		}
		if next[k] != now[k] {
			o["pending"] = next[k]
		} else {
			o["new"] = next[k]
		}
		out = append(out, o)
	}
	return out, nil
}

// regenerateCloudInit writes the drive anew; machines read it when they start.
func (s *Server) regenerateCloudInit(r *request) (any, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	if err := s.checkLock(vm); err != nil {
		return nil, err
	}
	for k, v := range vm.Config {
		if isDisk(k) && isCloudInit(v) {
			return nil, nil
		}
	}
	return nil, failed("VM %d has no cloud-init drive", vm.VMID)
}
