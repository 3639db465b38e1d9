package pveapi

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// pick keeps the named fields of every object of a list.
func pick(list any, keys ...string) []string {
	out := []string{}
	for _, o := range list.([]any) {
		line := ""
		for _, k := range keys {
			line += fmt.Sprintf("%v ", o.(map[string]any)[k])
		}
		out = append(out, line[:len(line)-1])
	}
	return out
}

// TestListings: what the cluster has, as its lists show it.
func TestListings(t *testing.T) {
	o := testOptions(t)
	start := time.Now()
	o.Clock = func() time.Time { return start }
	o.Hypervisors[1].Storages = []Storage{{Name: "nas", Type: "nfs", Content: []string{"images", "backup"}, SizeBytes: 1 << 40, Shared: true}}
	o.Hypervisors[0].Storages = append(DefaultStorages(), o.Hypervisors[1].Storages[0])
	o.Tokens = []Token{{User: "k3lab@pve", ID: "view", Secret: "s3", Privileges: []string{"VM.Audit"}}}
	x := open(t, o)
	x.ok("POST", "/pools", map[string]string{"poolid": "lab", "comment": "the lab"})
	x.newVM("pve1", 100, map[string]string{"pool": "lab", "tags": "b;a"})
	x.newVM("pve2", 101, map[string]string{"scsi0": "nas:4,format=qcow2"})
	x.newVM("pve1", 102, map[string]string{"template": "1"})
	x.ok("PUT", "/pools/lab", map[string]string{"vms": "101", "storage": "nas"})
	x.must("POST", "/nodes/pve2/qemu/101/status/start", nil)
	for _, tc := range []struct {
		path string
		keys []string
		want []string
	}{
		{"/cluster/status", []string{"type", "name", "nodes", "online"}, []string{"cluster sandbox 2 <nil>", "node pve1 <nil> 1", "node pve2 <nil> 1"}},
		{"/nodes", []string{"node", "status", "mem", "uptime"}, []string{"pve1 online 0 1", "pve2 online 1.073741824e+09 1"}},
		{"/nodes/pve1/qemu", []string{"vmid", "name", "status", "template", "tags"}, []string{"100 vm100 stopped <nil> a;b", "102 vm102 stopped 1 <nil>"}},
		{"/cluster/resources?type=vm", []string{"id", "node", "status", "pool", "template"}, []string{"qemu/100 pve1 stopped lab 0", "qemu/101 pve2 running lab 0", "qemu/102 pve1 stopped <nil> 1"}},
		{"/cluster/resources?type=node", []string{"id", "maxcpu"}, []string{"node/pve1 16", "node/pve2 16"}},
		{"/cluster/resources?type=storage", []string{"id", "plugintype", "shared"}, []string{"storage/pve1/local dir 0", "storage/pve1/local-lvm lvmthin 0", "storage/pve1/local-zfs zfspool 0", "storage/pve1/nas nfs 1", "storage/pve2/nas nfs 1"}},
		{"/cluster/resources?type=pool", []string{"id"}, []string{"/pool/lab"}},
		{"/storage", []string{"storage", "type", "content"}, []string{"local dir backup,import,iso,snippets,vztmpl", "local-lvm lvmthin images,rootdir", "local-zfs zfspool images,rootdir", "nas nfs backup,images"}},
		{"/nodes/pve1/storage?content=images", []string{"storage", "used", "active"}, []string{"local-lvm 1.7179869184e+10 1", "local-zfs 0 1", "nas 4.294967296e+09 1"}},
		{"/nodes/pve1/storage/nas/content", []string{"volid", "format", "vmid"}, []string{"nas:101/vm-101-disk-0.qcow2 qcow2 101"}},
		{"/pools", []string{"poolid", "comment"}, []string{"lab the lab"}},
		{"/access/users", []string{"userid"}, []string{"k3lab@pve", "root@pam"}},
		{"/access/users/root@pam/token", []string{"tokenid", "privsep"}, []string{"k3lab 0"}},
		{"/nodes/pve1/network", []string{"iface", "type", "cidr"}, []string{"vmbr0 bridge 127.0.0.1/24"}},
		{"/nodes/pve2/tasks", []string{"type", "id", "user", "tokenid", "status"}, []string{"qmstart 101 root@pam k3lab OK", "qmcreate 101 root@pam k3lab OK"}},
		{"/nodes/pve1/tasks?vmid=100", []string{"type"}, []string{"qmcreate"}},
		{"/cluster/tasks", []string{"type", "node"}, []string{"qmstart pve2", "qmcreate pve1", "qmcreate pve2", "qmcreate pve1"}},
	} {
		t.Run(tc.path, func(t *testing.T) {
			if d := cmp.Diff(tc.want, pick(x.get(tc.path, nil), tc.keys...)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	members := x.get("/pools/lab", nil).(map[string]any)["members"]
	if d := cmp.Diff([]string{"qemu/100", "qemu/101", "storage/pve1/nas", "storage/pve2/nas"}, pick(members, "id")); d != "" {
		t.Errorf("members of the pool (-want +got):\n%s", d)
	}
	if got := x.get("/cluster/nextid", nil); got != "103" {
		t.Errorf("next VMID is %v", got)
	}
	x.auth = "PVEAPIToken=k3lab@pve!view=s3"
	if d := cmp.Diff(map[string]any{"/vms": map[string]any{"VM.Audit": 1.}}, x.get("/access/permissions?path=/vms", nil)); d != "" {
		t.Errorf("permissions (-want +got):\n%s", d)
	}
	want := []VMInfo{{VMID: 100, Name: "vm100", Node: "pve1"}, {VMID: 101, Name: "vm101", Node: "pve2", Running: true}, {VMID: 102, Name: "vm102", Node: "pve1", Template: true}}
	if d := cmp.Diff(want, x.server.VMs()); d != "" {
		t.Errorf("VMs (-want +got):\n%s", d)
	}
}

// TestSharedStorage: a VM on shared disks moves without them, and may be
// cloned to another hypervisor.
func TestSharedStorage(t *testing.T) {
	o := testOptions(t)
	nas := Storage{Name: "nas", Type: "nfs", Content: []string{"images"}, SizeBytes: 1 << 40, Shared: true}
	for i := range o.Hypervisors {
		o.Hypervisors[i].Storages = []Storage{nas}
	}
	x := open(t, o)
	x.newVM("pve1", 100, map[string]string{"scsi0": "nas:4"})
	x.must("POST", "/nodes/pve1/qemu/100/clone", map[string]string{"newid": "101", "target": "pve2"})
	x.must("POST", "/nodes/pve1/qemu/100/migrate", map[string]string{"target": "pve2"})
	if d := cmp.Diff([]string{"100", "101"}, pick(x.get("/nodes/pve2/qemu", nil), "vmid")); d != "" {
		t.Errorf("VMs of pve2 (-want +got):\n%s", d)
	}
	x.wantVolumes("pve1", "nas", "nas:100/vm-100-disk-0.raw 4G", "nas:101/vm-101-disk-0.raw 4G")
	x.must("DELETE", "/nodes/pve2/qemu/100", nil)
	x.wantVolumes("pve2", "nas", "nas:101/vm-101-disk-0.raw 4G")
}

// TestStartAndStopAll: in order of startup, and backwards.
func TestStartAndStopAll(t *testing.T) {
	x, m := withRecorder(t)
	x.newVM("pve1", 100, map[string]string{"onboot": "1", "startup": "order=3"})
	x.newVM("pve1", 101, map[string]string{"onboot": "1", "startup": "order=2,up=10"})
	x.newVM("pve1", 102, map[string]string{"startup": "order=1"})
	x.newVM("pve1", 103, map[string]string{"onboot": "1"})
	x.must("POST", "/nodes/pve1/startall", nil)
	if d := cmp.Diff([]string{"start 101", "start 100", "start 103"}, m.take()); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
	x.must("POST", "/nodes/pve1/stopall", nil)
	if d := cmp.Diff([]string{"shutdown 103", "shutdown 100", "shutdown 101"}, m.take()); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
	if err := x.server.SetFaults(Faults{Locks: map[int]string{101: "backup"}}); err != nil {
		t.Fatal(err)
	}
	if exit := x.run("POST", "/nodes/pve1/startall", map[string]string{"force": "1"}); exit != "VM 101: VM is locked (backup)" {
		t.Errorf("startall with a locked VM ended with %q", exit)
	}
	if d := cmp.Diff([]string{"start 102", "start 100", "start 103"}, m.take()); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
}

// TestAgent: the agent knows the addresses cloud-init gave.
func TestAgent(t *testing.T) {
	x := open(t, testOptions(t))
	x.newVM("pve1", 100, map[string]string{"agent": "enabled=1", "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0", "ipconfig0": "ip=192.0.2.11/24"})
	x.must("POST", "/nodes/pve1/qemu/100/status/start", nil)
	got := x.get("/nodes/pve1/qemu/100/agent/network-get-interfaces", nil).(map[string]any)["result"].([]any)[1]
	want := map[string]any{
		"name": "eth0", "hardware-address": "bc:24:11:00:00:01",
		"ip-addresses": []any{map[string]any{"ip-address": "192.0.2.11", "ip-address-type": "ipv4", "prefix": 24.}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("interface (-want +got):\n%s", d)
	}
}

// TestUpload: a file sent along is there with its size.
func TestUpload(t *testing.T) {
	x := open(t, testOptions(t))
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	if err := w.WriteField("content", "iso"); err != nil {
		t.Fatal(err)
	}
	f, err := w.CreateFormFile("filename", "a.iso")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(bytes.Repeat([]byte("x"), 4096)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, x.url+prefix+"/nodes/pve1/storage/local/upload", &body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", w.FormDataContentType())
	r := x.do(req)
	if r.code != 200 {
		t.Fatalf("%d %s %v", r.code, r.reason, r.errors)
	}
	x.wait(r.data.(string))
	x.wantVolumes("pve1", "local", "local:iso/a.iso 4K")
}

// TestFirewallObjects: sets, aliases and groups can be made, renamed and removed.
func TestFirewallObjects(t *testing.T) {
	x := open(t, testOptions(t))
	const fw = "/cluster/firewall"
	for _, c := range []struct {
		method, path string
		params       map[string]string
	}{
		{"POST", "/ipset", map[string]string{"name": "admin", "comment": "us"}},
		{"POST", "/ipset/admin", map[string]string{"cidr": "192.0.2.0/24", "comment": "office"}},
		{"POST", "/ipset/admin", map[string]string{"cidr": "192.0.2.7/32", "nomatch": "1"}},
		{"POST", "/ipset", map[string]string{"name": "admins", "rename": "admin"}},
		{"PUT", "/ipset/admins/192.0.2.7", map[string]string{"comment": "one"}},
		{"DELETE", "/ipset/admins/192.0.2.0%2F24", nil},
		{"POST", "/aliases", map[string]string{"name": "VIP", "cidr": "192.0.2.10"}},
		{"PUT", "/aliases/vip", map[string]string{"cidr": "2001:db8::/64", "rename": "vip6"}},
		{"POST", "/groups", map[string]string{"group": "lab"}},
		{"POST", "/groups/lab", map[string]string{"type": "in", "action": "ACCEPT", "source": "+admins,vip6", "enable": "1"}},
		{"POST", "/groups", map[string]string{"group": "labs", "rename": "lab", "comment": "ours"}},
		{"PUT", "/options", map[string]string{"enable": "1", "policy_in": "DROP"}},
	} {
		x.ok(c.method, fw+c.path, c.params)
	}
	for path, want := range map[string][]string{
		"/ipset": {"admins us"}, "/ipset/admins": {"192.0.2.7 one"}, "/aliases": {"vip6 2001:db8::/64 6"}, "/groups": {"labs ours"}, "/groups/labs": {"+admins,vip6 1"},
	} {
		keys := map[string][]string{
			"/ipset": {"name", "comment"}, "/ipset/admins": {"cidr", "comment"}, "/aliases": {"name", "cidr", "ipversion"},
			"/groups": {"group", "comment"}, "/groups/labs": {"source", "enable"},
		}[path]
		if d := cmp.Diff(want, pick(x.get(fw+path, nil), keys...)); d != "" {
			t.Errorf("%s (-want +got):\n%s", path, d)
		}
	}
	options := x.get(fw+"/options", nil).(map[string]any)
	if options["enable"] != 1. || options["policy_in"] != "DROP" {
		t.Errorf("options: %v", options)
	}
	x.refuse(500, "Security group 'labs' is not empty", "DELETE", fw+"/groups/labs", nil)
	x.ok("DELETE", fw+"/groups/labs/0", nil)
	x.ok("DELETE", fw+"/groups/labs", nil)
	x.ok("DELETE", fw+"/aliases/vip6", nil)
	x.ok("DELETE", fw+"/ipset/admins", map[string]string{"force": "1"})
	for _, bad := range []struct {
		method, path string
		params       map[string]string
	}{
		{"PUT", "/options", map[string]string{"policy_in": "MAYBE"}},
		{"PUT", "/options", map[string]string{"colour": "red"}},
		{"POST", "/aliases", map[string]string{"name": "a", "cidr": "300.1.1.1"}},
		{"POST", "/rules", map[string]string{"type": "in", "action": "ACCEPT", "dport": "22"}},
		{"POST", "/rules", map[string]string{"type": "in", "action": "MAYBE"}},
		{"GET", "/aliases/nope", nil},
	} {
		x.refuse(400, "Parameter verification failed.", bad.method, fw+bad.path, bad.params)
	}
}

// TestMigratePreconditions: where a VM may go, and what would go along.
func TestMigratePreconditions(t *testing.T) {
	o := testOptions(t)
	o.Hypervisors = append(o.Hypervisors, Hypervisor{Name: "pve3", Storages: []Storage{{Name: "local", Type: "dir", Content: []string{"backup"}, SizeBytes: 1 << 30}}})
	x := open(t, o)
	x.newVM("pve1", 100, nil)
	got := x.get("/nodes/pve1/qemu/100/migrate", nil).(map[string]any)
	want := map[string]any{
		"running": 0., "local_resources": []any{}, "mapped-resources": []any{}, "has-dbus-vmstate": 0.,
		"local_disks":   []any{map[string]any{"volid": "local-lvm:vm-100-disk-0", "size": float64(8 << 30), "cdrom": 0., "is_unused": 0., "is_vmstate": 0.}},
		"allowed_nodes": []any{"pve2"}, "not_allowed_nodes": map[string]any{"pve3": map[string]any{"unavailable_storages": []any{"local-lvm"}}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	x.refuse(500, "storage 'local-lvm' is not available on node 'pve3'", "POST", "/nodes/pve1/qemu/100/migrate", map[string]string{"target": "pve3"})
}
