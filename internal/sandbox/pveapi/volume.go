package pveapi

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// volumeKey is where a volume stands in State.Volumes: the node is part of it
// unless the storage is shared, since equal names exist on every node.
func volumeKey(node, volid string) string { return node + "/" + volid }

// home is the node part of the key of volumes on this storage.
func (st *Storage) home(node string) string {
	if st.Shared {
		return ""
	}
	return node
}

// splitVolid parts "storage:name".
func splitVolid(volid string) (storage, name string, ok bool) {
	storage, name, ok = strings.Cut(volid, ":")
	return storage, name, ok && storage != "" && name != ""
}

// volume finds a volume as the node sees it.
func (s *Server) volume(node, volid string) (*Volume, *Storage, error) {
	h, err := s.hypervisor(node)
	if err != nil {
		return nil, nil, err
	}
	name, _, ok := splitVolid(volid)
	if !ok {
		return nil, nil, failed("unable to parse volume ID '%s'", volid)
	}
	st, err := h.storage(name)
	if err != nil {
		return nil, nil, err
	}
	return s.state.Volumes[volumeKey(st.home(node), volid)], st, nil
}

// volumesOn lists a storage's volumes as the node sees them, sorted by name.
func (st *State) volumesOn(node string, storage *Storage) []*Volume {
	var out []*Volume
	for _, k := range slices.Sorted(maps.Keys(st.Volumes)) {
		v := st.Volumes[k]
		if name, _, _ := splitVolid(v.Volid); name == storage.Name && v.Node == storage.home(node) {
			out = append(out, v)
		}
	}
	return out
}

// used is the sum of the sizes of a storage's volumes in bytes. Thin volumes
// count as if they were full.
func (st *State) used(node string, storage *Storage) int64 {
	var sum int64
	for _, v := range st.volumesOn(node, storage) {
		sum += v.Size
	}
	return sum
}

// imageName is the volume name of a VM's disk on this kind of storage.
func (st *Storage) imageName(vmid int, name, format string) string {
	if !st.files() {
		return name
	}
	return fmt.Sprintf("%d/%s.%s", vmid, name, format)
}

// format is the image format used where none is asked for.
func (st *Storage) format(asked string) (string, error) {
	if !st.files() {
		if asked != "" && asked != "raw" {
			return "", failed("unsupported format '%s'", asked)
		}
		return "raw", nil
	}
	switch asked {
	case "":
		return "raw", nil
	case "raw", "qcow2", "vmdk":
		return asked, nil
	}
	return "", failed("unsupported format '%s'", asked)
}

// newVolume is what allocate makes.
type newVolume struct {
	vmid   int
	suffix string // "cloudinit", or "" for the next free disk-N
	format string
	size   int64
	parent string // base volume of a linked clone
}

// allocate makes a disk image for a VM.
func (s *Server) allocate(node string, st *Storage, n newVolume) (*Volume, error) {
	if !st.holds("images") {
		return nil, badParam("storage", "storage '%s' does not support vm images", st.Name)
	}
	format, err := st.format(n.format)
	if err != nil {
		return nil, err
	}
	if s.state.used(node, st)+n.size > st.SizeBytes*overcommit {
		return nil, failed("unable to create image: no space left on storage '%s'", st.Name)
	}
	name := n.suffix
	for i := 0; name == ""; i++ {
		name = fmt.Sprintf("disk-%d", i)
		if s.diskTaken(node, st, n.vmid, name) {
			name = ""
		}
	}
	full := st.imageName(n.vmid, fmt.Sprintf("vm-%d-%s", n.vmid, name), format)
	if _, base, ok := splitVolid(n.parent); ok && st.Type != "lvmthin" {
		full = base + "/" + full
	}
	v := &Volume{
		Node: st.home(node), Volid: st.Name + ":" + full, Content: "images", Format: format,
		Size: n.size, VMID: n.vmid, Parent: n.parent, CTime: s.now(),
	}
	key := volumeKey(v.Node, v.Volid)
	if s.state.Volumes[key] != nil {
		return nil, failed("disk image '%s' already exists", v.Volid)
	}
	s.state.Volumes[key] = v
	return v, nil
}

// overcommit is how many times over a storage may be promised: all of them are thin.
const overcommit = 4

// diskTaken says whether the VM has that disk on the storage, as image or base.
func (s *Server) diskTaken(node string, st *Storage, vmid int, name string) bool {
	for _, v := range s.state.volumesOn(node, st) {
		if v.VMID != vmid || v.Content != "images" {
			continue
		}
		last := v.Volid[strings.LastIndexAny(v.Volid, ":/")+1:]
		for _, kind := range []string{"vm", "base"} {
			n := fmt.Sprintf("%s-%d-%s", kind, vmid, name)
			if last == n || strings.HasPrefix(last, n+".") {
				return true
			}
		}
	}
	return false
}

// free removes a volume; a missing one is no error.
func (st *State) free(node, volid string) error {
	for _, home := range []string{node, ""} {
		v := st.Volumes[volumeKey(home, volid)]
		if v == nil {
			continue
		}
		for _, k := range slices.Sorted(maps.Keys(st.Volumes)) {
			if c := st.Volumes[k]; c.Parent == volid && c.Node == home && c != v {
				return failed("base volume '%s' is still in use by linked cloned", v.Volid)
			}
		}
		delete(st.Volumes, volumeKey(home, volid))
		return nil
	}
	return nil
}

// forget removes a VM with its disks and its firewall, without asking anybody.
func (st *State) forget(vmid int) {
	vm := st.VMs[vmid]
	delete(st.VMs, vmid)
	delete(st.VMFW, vmid)
	for k, v := range st.Volumes {
		if v.VMID == vmid && v.Content == "images" && (vm == nil || v.Node == vm.Node || v.Node == "") {
			delete(st.Volumes, k)
		}
	}
}

// rename gives a volume another name, as turning a disk into a base image does.
func (st *State) rename(v *Volume, volid string) {
	delete(st.Volumes, volumeKey(v.Node, v.Volid))
	v.Volid = volid
	st.Volumes[volumeKey(v.Node, volid)] = v
}
