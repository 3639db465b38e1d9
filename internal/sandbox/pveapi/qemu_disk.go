package pveapi

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// driveOptions are what a drive may have besides its volume.
func driveOptions() []string {
	return []string{
		"aio", "backup", "bps", "bps_max_length", "bps_rd", "bps_rd_max_length", "bps_wr", "bps_wr_max_length", "cache",
		"cyls", "detect_zeroes", "discard", "efitype", "file", "format", "heads", "import-from", "iops", "iops_max",
		"iops_max_length", "iops_rd", "iops_rd_max", "iops_rd_max_length", "iops_wr", "iops_wr_max", "iops_wr_max_length",
		"iothread", "mbps", "mbps_max", "mbps_rd", "mbps_rd_max", "mbps_wr", "mbps_wr_max", "media", "model",
		"pre-enrolled-keys", "product", "queues", "replicate", "rerror", "ro", "scsiblock", "secs", "serial", "shared",
		"size", "snapshot", "ssd", "trans", "vendor", "version", "werror", "wwn",
	}
}

// setDisk keeps one drive. A new volume is allocated, imported or checked to
// exist; the volume that was at this key before, if another, becomes unused.
func (s *Server) setDisk(vm *VM, key, value string) error {
	d, err := parseProps(value, "file")
	if err != nil {
		return badParam(key, "invalid format - %v", err)
	}
	for _, k := range sortedKeys(d) {
		if !slices.Contains(driveOptions(), k) {
			return badParam(key, "invalid format - format error\n%s.%s: property is not defined in schema and the schema does not allow additional properties", key, k)
		}
	}
	if serial := d["serial"]; len(serial) > 60 {
		return badParam(key, "invalid format - serial: value may only be 60 characters long")
	}
	if d["file"] == "" || d["file"] == "none" || d["file"] == "cdrom" {
		if d["media"] != "cdrom" {
			return badParam(key, "unable to parse drive options")
		}
		s.detach(vm, key, "")
		vm.Config[key] = d.print("file")
		return nil
	}
	if err := s.resolveVolume(vm, key, d); err != nil {
		return err
	}
	delete(d, "import-from")
	delete(d, "format")
	s.detach(vm, key, d["file"])
	vm.Config[key] = d.print("file")
	for _, k := range sortedKeys(vm.Config) { // it is in use again
		if strings.HasPrefix(k, "unused") && vm.Config[k] == d["file"] {
			delete(vm.Config, k)
		}
	}
	return nil
}

// resolveVolume turns what a drive asks for into a volume that exists.
func (s *Server) resolveVolume(vm *VM, key string, d props) error {
	storeName, rest, ok := splitVolid(d["file"])
	if !ok {
		return badParam(key, "not a valid volid: %s", d["file"])
	}
	h, err := s.hypervisor(vm.Node)
	if err != nil {
		return err
	}
	st, err := h.storage(storeName)
	if err != nil {
		return err
	}
	if rest == "cloudinit" {
		return s.newCloudInit(vm, key, st, d)
	}
	if gib, err := strconv.ParseFloat(rest, 64); err == nil {
		return s.newDisk(vm, key, st, int64(gib*(1<<30)), d)
	}
	v := s.state.Volumes[volumeKey(st.home(vm.Node), d["file"])]
	if v == nil {
		return failed("volume %s does not exist", d["file"])
	}
	switch {
	case v.Content == "iso" && d["media"] != "cdrom":
		return badParam(key, "explicit 'media=cdrom' is required for iso images")
	case v.Content != "iso" && v.Content != "images":
		return failed("cannot use volume %s - content type needs to be 'images' or 'iso'", v.Volid)
	case v.Content == "images" && v.VMID != vm.VMID:
		return failed("cannot use volume %s - it belongs to VM %d", v.Volid, v.VMID)
	}
	d["size"] = formatSize(v.Size)
	return nil
}

func (s *Server) newCloudInit(vm *VM, key string, st *Storage, d props) error {
	for _, k := range sortedKeys(vm.Config) {
		if k != key && isCloudInit(vm.Config[k]) && isDisk(k) {
			return failed("%s - cloud-init drive is already attached at '%s'", key, k)
		}
	}
	format := d["format"]
	if format == "" && st.files() {
		format = "qcow2"
	}
	name := st.Name + ":" + st.imageName(vm.VMID, fmt.Sprintf("vm-%d-cloudinit", vm.VMID), format)
	v := s.state.Volumes[volumeKey(st.home(vm.Node), name)]
	if v == nil {
		var err error
		v, err = s.allocate(vm.Node, st, newVolume{vmid: vm.VMID, suffix: "cloudinit", format: format, size: 4 << 20})
		if err != nil {
			return err
		}
	}
	// The real one drops the size here, so that the drive reads …,media=cdrom.
	delete(d, "size")
	d["file"], d["media"] = v.Volid, "cdrom"
	return nil
}

// newDisk allocates a disk of that size, or of the size of the image imported.
func (s *Server) newDisk(vm *VM, key string, st *Storage, size int64, d props) error {
	switch base, _, _ := indexed(key); base {
	case "efidisk":
		size = 528 << 10
	case "tpmstate":
		size = 4 << 20
	}
	if from := d["import-from"]; from != "" {
		src, _, err := s.volume(vm.Node, from)
		if err != nil {
			return err
		}
		if src == nil {
			return failed("%s: cannot import from '%s' - volume does not exist", key, from)
		}
		if src.Content != "images" && src.Content != "import" {
			return badParam(key, "cannot import from '%s' - content type needs to be 'images' or 'import'", from)
		}
		size = src.Size
	}
	if size <= 0 {
		return badParam(key, "size of a new disk is to be greater than zero")
	}
	v, err := s.allocate(vm.Node, st, newVolume{vmid: vm.VMID, format: d["format"], size: size})
	if err != nil {
		return err
	}
	if vm.template() { // what is added to a template becomes a base image
		s.state.rename(v, baseName(v.Volid))
	}
	d["file"], d["size"] = v.Volid, formatSize(size)
	return nil
}

// baseName is what a VM's disk is called once its VM is a template.
func baseName(volid string) string {
	i := strings.LastIndexAny(volid, ":/") + 1
	if rest, ok := strings.CutPrefix(volid[i:], "vm-"); ok {
		return volid[:i] + "base-" + rest
	}
	return volid
}

// detach makes the volume at a key unused, unless it stays (keep). Cloud-init
// drives and CD-ROMs are removed, or simply no longer referred to.
func (s *Server) detach(vm *VM, key, keep string) {
	old, has := vm.Config[key]
	if !has {
		return
	}
	delete(vm.Config, key)
	d, err := parseProps(old, "file")
	if err != nil || d["file"] == keep {
		return
	}
	if isCloudInit(old) {
		_ = s.state.free(vm.Node, d["file"]) // a cloud-init drive is no base of a clone
		return
	}
	if d["media"] == "cdrom" {
		return
	}
	for i := 0; ; i++ {
		k := "unused" + strconv.Itoa(i)
		if _, taken := vm.Config[k]; !taken {
			vm.Config[k] = d["file"]
			return
		}
	}
}

// destroyDisk removes the drive at a key together with its volume.
func (s *Server) destroyDisk(vm *VM, key string) error {
	d, err := parseProps(vm.Config[key], "file")
	if err != nil {
		return failed("unable to parse drive options for '%s'", key)
	}
	if d["media"] != "cdrom" || isCloudInit(vm.Config[key]) {
		if err := s.inSnapshot(vm, d["file"]); err != nil {
			return err
		}
		if err := s.state.free(vm.Node, d["file"]); err != nil {
			return err
		}
	}
	delete(vm.Config, key)
	return nil
}

// inSnapshot fails when a snapshot of the VM needs the volume.
func (s *Server) inSnapshot(vm *VM, volid string) error {
	for _, name := range sortedNames(vm.Snapshots) {
		for k, v := range vm.Snapshots[name].Config {
			if !isDisk(k) {
				continue
			}
			if d, err := parseProps(v, "file"); err == nil && d["file"] == volid && !isCloudInit(v) {
				return failed("unable to delete '%s' - volume is still in use (snapshot?)", volid)
			}
		}
	}
	return nil
}

// isCloudInit says whether a drive is the cloud-init one.
func isCloudInit(value string) bool {
	volid, _, _ := strings.Cut(value, ",")
	name := volid[strings.LastIndexAny(volid, ":/")+1:]
	name, _, _ = strings.Cut(name, ".")
	return strings.HasPrefix(name, "vm-") && strings.HasSuffix(name, "-cloudinit")
}

// isCDROM says whether a drive is a CD-ROM; the cloud-init drive is one, too.
func isCDROM(value string) bool { return strings.Contains(","+value+",", ",media=cdrom,") }

// diskKeys lists the VM's drives that hold data, in order of bus and number.
func (vm *VM) diskKeys() []string {
	var out []string
	for k, v := range vm.Config {
		if isDisk(k) && !isCDROM(v) {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, compareKeys)
	return out
}

// compareKeys orders scsi2 before scsi10.
func compareKeys(a, b string) int {
	ab, an, _ := indexed(a)
	bb, bn, _ := indexed(b)
	if ab != bb {
		return strings.Compare(ab, bb)
	}
	return an - bn
}
