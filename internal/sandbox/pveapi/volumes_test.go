package pveapi

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// volumes lists a storage's volumes with their sizes.
func (x *lab) volumes(node, storage string) []string {
	x.t.Helper()
	out := []string{}
	for _, o := range x.get("/nodes/"+node+"/storage/"+storage+"/content", nil).([]any) {
		v := o.(map[string]any)
		out = append(out, fmt.Sprintf("%s %s", v["volid"], formatSize(int64(v["size"].(float64)))))
	}
	return out
}

func (x *lab) wantVolumes(node, storage string, want ...string) {
	x.t.Helper()
	if want == nil {
		want = []string{}
	}
	if d := cmp.Diff(want, x.volumes(node, storage)); d != "" {
		x.t.Errorf("volumes on %s of %s (-want +got):\n%s", storage, node, d)
	}
}

// TestDiskLife: disks are volumes that are made, grown, moved, taken off and
// deleted.
func TestDiskLife(t *testing.T) {
	x := open(t, testOptions(t))
	x.newVM("pve1", 100, map[string]string{"scsi1": "local-zfs:1", "ide2": "local-lvm:cloudinit"})
	const vm = "/nodes/pve1/qemu/100"
	x.wantVolumes("pve1", "local-lvm", "local-lvm:vm-100-cloudinit 4M", "local-lvm:vm-100-disk-0 8G")
	x.wantVolumes("pve2", "local-lvm")
	for _, tc := range []struct{ size, exit string }{
		{"+2G", "OK"}, {"10G", "OK"}, {"9G", "shrinking disks is not supported"}, {"12884901888", "OK"}, {"9000T", "unable to resize: no space left on storage 'local-lvm'"},
	} {
		if exit := x.run("PUT", vm+"/resize", map[string]string{"disk": "scsi0", "size": tc.size}); exit != tc.exit {
			t.Errorf("resize to %s ended with %q, want %q", tc.size, exit, tc.exit)
		}
	}
	if exit := x.run("PUT", vm+"/resize", map[string]string{"disk": "ide2", "size": "1G"}); exit != "you can't resize a cdrom" {
		t.Errorf("resize of the cloud-init drive ended with %q", exit)
	}
	x.must("POST", vm+"/move_disk", map[string]string{"disk": "scsi0", "storage": "local-zfs"})
	x.wantVolumes("pve1", "local-zfs", "local-zfs:vm-100-disk-0 1G", "local-zfs:vm-100-disk-1 12G")
	x.ok("PUT", vm+"/config", map[string]string{"delete": "scsi1,ide2"})
	want := map[string]any{
		"cores": 2., "memory": "1024", "name": "vm100", "boot": "order=scsi0", "scsi0": "local-zfs:vm-100-disk-1,size=12G",
		"unused0": "local-lvm:vm-100-disk-0", "unused1": "local-zfs:vm-100-disk-0",
	}
	if d := cmp.Diff(want, x.config("pve1", 100)); d != "" {
		t.Errorf("config (-want +got):\n%s", d)
	}
	x.ok("PUT", vm+"/config", map[string]string{"scsi2": "local-zfs:vm-100-disk-0,serial=OLD"})
	if _, still := x.config("pve1", 100)["unused1"]; still {
		t.Error("a disk in use is listed as unused")
	}
	x.ok("PUT", vm+"/unlink", map[string]string{"idlist": "unused0", "force": "1"})
	x.wantVolumes("pve1", "local-lvm")
	x.must("DELETE", vm, nil)
	x.wantVolumes("pve1", "local-zfs")
}

// TestRefusedChange: a change refused half-way leaves no volume behind.
func TestRefusedChange(t *testing.T) {
	x := open(t, testOptions(t))
	x.newVM("pve1", 100, nil)
	before := x.config("pve1", 100)
	x.refuse(500, "storage 'nas' does not exist", "PUT", "/nodes/pve1/qemu/100/config",
		map[string]string{"scsi1": "local-lvm:4", "scsi2": "nas:4", "delete": "scsi0"})
	if d := cmp.Diff(before, x.config("pve1", 100)); d != "" {
		t.Errorf("config (-want +got):\n%s", d)
	}
	x.wantVolumes("pve1", "local-lvm", "local-lvm:vm-100-disk-0 8G")
}

// TestLinkedClones: base images outlive nothing that hangs on them.
func TestLinkedClones(t *testing.T) {
	x := open(t, testOptions(t))
	x.newVM("pve1", 100, map[string]string{"scsi0": "local-zfs:4", "ide2": "local-zfs:cloudinit"})
	x.must("POST", "/nodes/pve1/qemu/100/template", nil)
	x.must("POST", "/nodes/pve1/qemu/100/clone", map[string]string{"newid": "101"})
	x.wantVolumes("pve1", "local-zfs",
		"local-zfs:base-100-disk-0 4G", "local-zfs:base-100-disk-0/vm-101-disk-0 4G", "local-zfs:vm-100-cloudinit 4M", "local-zfs:vm-101-cloudinit 4M")
	const want = "base volume 'local-zfs:base-100-disk-0' is still in use by linked cloned"
	if exit := x.run("DELETE", "/nodes/pve1/qemu/100", nil); exit != want {
		t.Errorf("deleting the template ended with %q, want %q", exit, want)
	}
	if exit := x.run("POST", "/nodes/pve1/qemu/101/migrate", map[string]string{"target": "pve2"}); exit != "migration aborted" {
		t.Errorf("migrating the linked clone ended with %q", exit)
	}
	x.must("DELETE", "/nodes/pve1/qemu/101", nil)
	x.must("DELETE", "/nodes/pve1/qemu/100", nil)
	x.wantVolumes("pve1", "local-zfs")
}

// TestMigration: VM and volumes are on the other hypervisor afterwards.
func TestMigration(t *testing.T) {
	x := open(t, testOptions(t))
	x.newVM("pve1", 100, map[string]string{"ide2": "local-lvm:cloudinit"})
	x.must("POST", "/nodes/pve1/qemu/100/status/start", nil)
	if exit := x.run("POST", "/nodes/pve1/qemu/100/migrate", map[string]string{"target": "pve2", "online": "1"}); exit != "migration aborted" {
		t.Errorf("live migration without local disks ended with %q", exit)
	}
	x.must("POST", "/nodes/pve1/qemu/100/migrate", map[string]string{"target": "pve2", "online": "1", "with-local-disks": "1"})
	x.wantVolumes("pve1", "local-lvm")
	x.wantVolumes("pve2", "local-lvm", "local-lvm:vm-100-cloudinit 4M", "local-lvm:vm-100-disk-0 8G")
	r := x.get("/cluster/resources", map[string]string{"type": "vm"}).([]any)[0].(map[string]any)
	if r["node"] != "pve2" || r["status"] != "running" {
		t.Errorf("after migration: %v", r)
	}
	x.must("POST", "/nodes/pve2/qemu/100/status/stop", nil)
	x.must("POST", "/nodes/pve2/qemu/100/migrate", map[string]string{"target": "pve1", "targetstorage": "local-zfs"})
	want := map[string]any{
		"cores": 2., "memory": "1024", "name": "vm100", "boot": "order=scsi0",
		"scsi0": "local-zfs:vm-100-disk-0,size=8G", "ide2": "local-zfs:vm-100-cloudinit,media=cdrom",
	}
	if d := cmp.Diff(want, x.config("pve1", 100)); d != "" {
		t.Errorf("config (-want +got):\n%s", d)
	}
}

// TestDownload: any URL gives the sandbox's image, and everything says so.
func TestDownload(t *testing.T) {
	o := testOptions(t)
	o.ImageBytes, o.ImageNote = 3<<20, "not really"
	x := open(t, o)
	const link = "https://cloud.example/a/debian.qcow2"
	want := map[string]any{"filename": "debian.qcow2", "mimetype": "application/octet-stream", "size": float64(3 << 20)}
	if d := cmp.Diff(want, x.get("/nodes/pve1/query-url-metadata", map[string]string{"url": link})); d != "" {
		t.Errorf("metadata (-want +got):\n%s", d)
	}
	upid := x.ok("POST", "/nodes/pve1/storage/local/download-url", map[string]string{
		"url": link, "filename": "debian.qcow2", "content": "import", "checksum": "0011", "checksum-algorithm": "sha512",
	}).(string)
	x.wait(upid)
	var log []string
	for _, l := range x.get("/nodes/pve1/tasks/"+url.PathEscape(upid)+"/log", nil).([]any) {
		log = append(log, l.(map[string]any)["t"].(string))
	}
	wantLog := []string{
		"downloading https://cloud.example/a/debian.qcow2 to /var/lib/vz/import/debian.qcow2", "not really",
		"sha512 checksum 0011 not compared: the content is not that of the URL", "TASK OK",
	}
	if d := cmp.Diff(wantLog, log); d != "" {
		t.Errorf("log (-want +got):\n%s", d)
	}
	v := x.get("/nodes/pve1/storage/local/content/local:import%2Fdebian.qcow2", nil).(map[string]any)
	if v["notes"] != "not really" || v["size"] != float64(3<<20) {
		t.Errorf("volume: %v", v)
	}
	for _, tc := range []struct{ storage, file, content string }{
		{"local-lvm", "a.qcow2", "import"}, {"local", "a.txt", "import"}, {"local", "../a.qcow2", "import"}, {"local", "a.qcow2", "images"},
	} {
		x.refuse(400, "Parameter verification failed.", "POST", "/nodes/pve1/storage/"+tc.storage+"/download-url",
			map[string]string{"url": link, "filename": tc.file, "content": tc.content})
	}
	x.must("DELETE", "/nodes/pve1/storage/local/content/local:import/debian.qcow2", nil) // unescaped, as go-proxmox sends it
	x.wantVolumes("pve1", "local")
}

// TestBackup: an archive appears, and says what it lacks.
func TestBackup(t *testing.T) {
	x := open(t, testOptions(t))
	x.newVM("pve1", 100, nil)
	x.must("POST", "/nodes/pve1/vzdump", map[string]string{"vmid": "100", "storage": "local", "compress": "zstd", "protected": "1"})
	list := x.get("/nodes/pve1/storage/local/content", map[string]string{"content": "backup", "vmid": "100"}).([]any)
	if len(list) != 1 {
		t.Fatalf("%d backups", len(list))
	}
	v := list[0].(map[string]any)
	if v["format"] != "vma.zst" || v["size"] != float64(8<<30) || !strings.Contains(v["notes"].(string), "without disk content") {
		t.Errorf("backup: %v", v)
	}
	path := "/nodes/pve1/storage/local/content/" + url.PathEscape(v["volid"].(string))
	x.refuse(500, "can't remove protected volume '"+v["volid"].(string)+"'", "DELETE", path, nil)
	x.ok("PUT", path, map[string]string{"protected": "0"})
	x.must("DELETE", path, nil)
	x.refuse(400, "Parameter verification failed.", "POST", "/nodes/pve1/vzdump", map[string]string{"vmid": "100", "storage": "local-lvm"})
}

// TestFirewallPositions: rules are inserted at the top; a position is a number
// in lists and text on its own.
func TestFirewallPositions(t *testing.T) {
	x := open(t, testOptions(t))
	x.newVM("pve1", 100, nil)
	const rules = "/nodes/pve1/qemu/100/firewall/rules"
	for _, c := range []string{"c", "b", "a"} {
		x.ok("POST", rules, map[string]string{"type": "in", "action": "ACCEPT", "comment": c})
	}
	comments := func() string {
		out := ""
		for i, o := range x.get(rules, nil).([]any) {
			r := o.(map[string]any)
			if r["pos"] != float64(i) || r["enable"] != 0. {
				t.Errorf("rule %d of the list: %v", i, r)
			}
			out += r["comment"].(string)
		}
		return out
	}
	if got := comments(); got != "abc" {
		t.Errorf("rules are %s, want abc", got)
	}
	x.ok("PUT", rules+"/0", map[string]string{"moveto": "2"})
	if got := comments(); got != "bac" {
		t.Errorf("rules are %s after a move, want bac", got)
	}
	x.ok("PUT", rules+"/1", map[string]string{"source": "192.0.2.0/24", "delete": "comment"})
	one := x.get(rules+"/1", nil).(map[string]any)
	delete(one, "digest")
	if d := cmp.Diff(map[string]any{"pos": "1", "type": "in", "action": "ACCEPT", "enable": 0., "source": "192.0.2.0/24"}, one); d != "" {
		t.Errorf("rule 1 (-want +got):\n%s", d)
	}
	x.ok("DELETE", rules+"/1", nil)
	if got := comments(); got != "bc" {
		t.Errorf("rules are %s after a removal, want bc", got)
	}
	x.refuse(400, "Parameter verification failed.", "POST", rules, map[string]string{"type": "in", "action": "ACCEPT", "source": "+nope"})
}

// TestManyAtOnce: concurrent clients get what each asked for.
func TestManyAtOnce(t *testing.T) {
	x := open(t, testOptions(t))
	x.newVM("pve1", 100, map[string]string{"net0": "virtio,bridge=vmbr0"})
	t.Run("clones", func(t *testing.T) {
		for i := range 24 {
			t.Run(vmidText(200+i), func(t *testing.T) {
				t.Parallel()
				x := *x
				x.t = t
				id := vmidText(200 + i)
				x.must("POST", "/nodes/pve1/qemu/100/clone", map[string]string{"newid": id, "name": "vm" + id})
				x.ok("PUT", "/nodes/pve1/qemu/"+id+"/config", map[string]string{"cores": vmidText(1 + i%4), "scsi1": "local-zfs:1"})
				x.must("POST", "/nodes/pve1/qemu/"+id+"/status/start", nil)
			})
		}
	})
	running, macs := 0, map[string]bool{}
	for _, o := range x.get("/cluster/resources", map[string]string{"type": "vm"}).([]any) {
		if r := o.(map[string]any); r["status"] == "running" {
			running++
			macs[x.config("pve1", int(r["vmid"].(float64)))["net0"].(string)] = true
		}
	}
	if running != 24 || len(macs) != 24 {
		t.Errorf("%d VMs run with %d MAC addresses, want 24", running, len(macs))
	}
	if n := len(x.volumes("pve1", "local-lvm")); n != 25 {
		t.Errorf("%d disks on local-lvm, want 25", n)
	}
}
