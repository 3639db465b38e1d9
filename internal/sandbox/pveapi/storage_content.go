package pveapi

import (
	"context"
	"strconv"
	"strings"
)

// brief is a volume as content lists show it.
func (v *Volume) brief() object {
	o := object{"volid": v.Volid, "content": v.Content, "format": v.Format, "size": v.Size, "ctime": v.CTime}
	if v.VMID != 0 {
		o["vmid"] = v.VMID
	}
	if v.Parent != "" {
		_, name, _ := splitVolid(v.Parent)
		o["parent"] = name
	}
	if v.Notes != "" {
		o["notes"] = v.Notes
	}
	if v.Protected {
		o["protected"] = 1
	}
	if v.Content == "backup" {
		o["subtype"] = "qemu"
	}
	return o
}

func (s *Server) listContent(r *request) (any, error) {
	st, err := s.storageOf(r)
	if err != nil {
		return nil, err
	}
	out := []object{}
	for _, v := range s.state.volumesOn(r.node(), st) {
		if c := r.get("content"); c != "" && c != v.Content {
			continue
		}
		if id := r.get("vmid"); id != "" && id != vmidText(v.VMID) {
			continue
		}
		out = append(out, v.brief())
	}
	return out, nil
}

// volumeOf is the volume the path names, with or without its storage.
func (s *Server) volumeOf(r *request) (*Volume, *Storage, error) {
	st, err := s.storageOf(r)
	if err != nil {
		return nil, nil, err
	}
	volid := r.path("volume")
	if !strings.Contains(volid, ":") {
		volid = st.Name + ":" + volid
	}
	if !strings.HasPrefix(volid, st.Name+":") {
		return nil, nil, badParam("volume", "storage ID missmatch ('%s')", volid)
	}
	v := s.state.Volumes[volumeKey(st.home(r.node()), volid)]
	if v == nil {
		return nil, nil, failed("volume '%s' does not exist", volid)
	}
	return v, st, nil
}

// file is the path of a volume on its node.
func (st *Storage) file(v *Volume) string {
	_, name, _ := splitVolid(v.Volid)
	switch st.Type {
	case "lvmthin":
		return "/dev/pve/" + name
	case "zfspool":
		return "/dev/zvol/rpool/data/" + name[strings.LastIndex(name, "/")+1:]
	}
	dir := map[string]string{"images": "images/", "iso": "template/iso/", "vztmpl": "template/cache/", "backup": "dump/", "snippets": "snippets/", "import": "import/"}[v.Content]
	_, base, ok := strings.Cut(name, "/")
	if !ok || v.Content == "images" {
		base = name
	}
	return st.path() + "/" + dir + base
}

func (s *Server) volumeInfo(r *request) (any, error) {
	v, st, err := s.volumeOf(r)
	if err != nil {
		return nil, err
	}
	o := object{"path": st.file(v), "format": v.Format, "size": v.Size, "used": v.Size}
	if v.Notes != "" {
		o["notes"] = v.Notes
	}
	if v.Protected {
		o["protected"] = 1
	}
	return o, nil
}

func (s *Server) changeVolume(r *request) (any, error) {
	v, _, err := s.volumeOf(r)
	if err != nil {
		return nil, err
	}
	if r.has("notes") {
		v.Notes = r.get("notes")
	}
	if r.has("protected") {
		if v.Content != "backup" {
			return nil, failed("updating volume attribute 'protected' is not supported for '%s'", v.Volid)
		}
		v.Protected = r.flag("protected")
	}
	return nil, nil
}

func (s *Server) deleteVolume(r *request) (any, error) {
	v, _, err := s.volumeOf(r)
	if err != nil {
		return nil, err
	}
	if v.Protected {
		return nil, failed("can't remove protected volume '%s'", v.Volid)
	}
	if v.Content == "images" {
		if key, vm := s.state.user(v); vm != nil {
			return nil, failed("Cannot remove image, a guest with VMID '%d' exists! (used as '%s')", vm.VMID, key)
		}
	}
	node, volid := r.node(), v.Volid
	_, name, _ := splitVolid(volid)
	return s.fork(r, job{typ: "imgdel", id: strings.ReplaceAll(name, "/", "-") + "@" + r.path("storage"), do: func(_ context.Context, w *worker) error {
		w.log("Removed volume '%s'", volid)
		return s.update(func(st *State) error { return st.free(node, volid) })
	}}), nil
}

// user finds the VM, and its configuration key, that refers to a volume.
func (st *State) user(v *Volume) (string, *VM) {
	vm := st.VMs[v.VMID]
	if vm == nil || v.Node != "" && vm.Node != v.Node {
		return "", nil
	}
	for _, k := range sortedKeys(vm.Config) {
		if isDisk(k) || strings.HasPrefix(k, "unused") {
			if d, err := parseProps(vm.Config[k], "file"); err == nil && d["file"] == v.Volid {
				return k, vm
			}
		}
	}
	return "", nil
}

// allocateContent makes an empty disk image.
func (s *Server) allocateContent(r *request) (any, error) {
	if err := r.require("filename", "size", "vmid"); err != nil {
		return nil, err
	}
	st, err := s.storageOf(r)
	if err != nil {
		return nil, err
	}
	vmid, err := strconv.Atoi(r.get("vmid"))
	if err != nil {
		return nil, badParam("vmid", "type check ('integer') failed - got '%s'", r.get("vmid"))
	}
	// Without a unit the size is in kilobytes here.
	size, err := parseSize(r.get("size"))
	if err != nil {
		return nil, badParam("size", "%v", err)
	}
	if _, err := strconv.Atoi(r.get("size")); err == nil {
		size *= 1024
	}
	name := r.get("filename")
	suffix, ok := strings.CutPrefix(name, "vm-"+r.get("vmid")+"-")
	if !ok {
		return nil, failed("illegal name '%s' - should be 'vm-%d-*'", name, vmid)
	}
	if st.files() {
		suffix = strings.TrimSuffix(suffix, "."+r.get("format"))
	}
	v, err := s.allocate(r.node(), st, newVolume{vmid: vmid, suffix: suffix, format: r.get("format"), size: size})
	if err != nil {
		return nil, err
	}
	return v.Volid, nil
}
