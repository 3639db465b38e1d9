package pveapi

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestRefusals: clients find the message in the reason phrase.
func TestRefusals(t *testing.T) {
	x := open(t, testOptions(t))
	x.ok("POST", "/pools", map[string]string{"poolid": "lab"})
	x.newVM("pve1", 100, map[string]string{"pool": "lab", "agent": "1", "ide2": "local-lvm:cloudinit"})
	x.newVM("pve1", 101, nil)
	x.must("POST", "/nodes/pve1/qemu/101/status/start", nil)
	x.newVM("pve1", 102, map[string]string{"template": "1"})
	x.newVM("pve1", 103, map[string]string{"protection": "1"})
	x.must("POST", "/nodes/pve1/storage/local/download-url", map[string]string{"url": "https://a.example/x.qcow2", "filename": "x.qcow2", "content": "import"})
	x.ok("POST", "/cluster/firewall/ipset", map[string]string{"name": "admin"})
	x.ok("POST", "/cluster/firewall/ipset/admin", map[string]string{"cidr": "192.0.2.1"})
	const vm = "/nodes/pve1/qemu/"
	for _, tc := range []struct {
		name, method, path string
		params             map[string]string
		code               int
		reason             string
	}{
		{"missing VM", "GET", vm + "999/config", nil, 500, "Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist"},
		{"VM on another node", "GET", "/nodes/pve2/qemu/100/status/current", nil, 500, "Configuration file 'nodes/pve2/qemu-server/100.conf' does not exist"},
		{"unknown node", "GET", "/nodes/pve9/status", nil, 500, "hostname lookup 'pve9' failed - failed to get address info for: pve9: Name or service not known"},
		{"unknown call", "GET", "/nodes/pve1/ceph", nil, 501, "Method 'GET /nodes/pve1/ceph' not implemented"},
		{"known path, other method", "PATCH", "/pools", nil, 501, "Method 'PATCH /pools' not implemented"},
		{"VMID taken", "POST", "/nodes/pve2/qemu", map[string]string{"vmid": "100"}, 500, "unable to create VM 100 - VM 100 already exists on node 'pve1'"},
		{"VMID of clone taken", "POST", vm + "100/clone", map[string]string{"newid": "101"}, 500, "unable to create VM 101: config file already exists"},
		{"VMID too low", "POST", "/nodes/pve1/qemu", map[string]string{"vmid": "99"}, 400, "Parameter verification failed."},
		{"unknown option", "PUT", vm + "100/config", map[string]string{"colour": "red"}, 400, "Parameter verification failed."},
		{"no options", "PUT", vm + "100/config", nil, 500, "no options specified"},
		{"stale digest", "PUT", vm + "100/config", map[string]string{"name": "a", "digest": "0"}, 500, "checksum mismatch (file change by other user?)"},
		{"boot from nothing", "PUT", vm + "100/config", map[string]string{"boot": "order=scsi7"}, 500, "invalid bootorder: device 'scsi7' does not exist'"},
		{"too much balloon", "PUT", vm + "100/config", map[string]string{"balloon": "9000"}, 500, "balloon value too large (must be smaller than assigned memory)"},
		{"second cloud-init drive", "PUT", vm + "100/config", map[string]string{"ide3": "local-lvm:cloudinit"}, 500, "ide3 - cloud-init drive is already attached at 'ide2'"},
		{"volume of another VM", "PUT", vm + "100/config", map[string]string{"scsi5": "local-lvm:vm-101-disk-0"}, 500, "cannot use volume local-lvm:vm-101-disk-0 - it belongs to VM 101"},
		{"unknown storage", "PUT", vm + "100/config", map[string]string{"scsi5": "nas:8"}, 500, "storage 'nas' does not exist"},
		{"delete running VM", "DELETE", vm + "101", nil, 500, "VM 101 is running - destroy failed"},
		{"delete protected VM", "DELETE", vm + "103", nil, 500, "can't remove VM 103 - protection mode enabled"},
		{"reboot stopped VM", "POST", vm + "100/status/reboot", nil, 500, "VM 100 not running"},
		{"linked clone of no template", "POST", vm + "100/clone", map[string]string{"newid": "300", "full": "0"}, 500, "Linked clone feature is not supported for 'local-lvm:vm-100-disk-0' (scsi0)"},
		{"linked clone to a storage", "POST", vm + "102/clone", map[string]string{"newid": "300", "storage": "local-zfs"}, 500, "parameter 'storage' not allowed for linked clones"},
		{"clone to another node", "POST", vm + "102/clone", map[string]string{"newid": "300", "full": "1", "target": "pve2"}, 500, "can't clone VM to node 'pve2' (VM uses local storage)"},
		{"template twice", "POST", vm + "102/template", nil, 500, "you can't convert a template to a template"},
		{"template of a running VM", "POST", vm + "101/template", nil, 500, "you can't convert a VM to template if VM is running"},
		{"live migration without online", "POST", vm + "101/migrate", map[string]string{"target": "pve2"}, 500, "can't migrate running VM without --online"},
		{"migration to itself", "POST", vm + "101/migrate", map[string]string{"target": "pve1"}, 400, "Parameter verification failed."},
		{"reserved snapshot name", "POST", vm + "100/snapshot", map[string]string{"snapname": "current"}, 500, "unable to use snapshot name 'current' (reserved name)"},
		{"missing snapshot", "POST", vm + "100/snapshot/nope/rollback", nil, 500, "snapshot 'nope' does not exist"},
		{"agent of stopped VM", "GET", vm + "100/agent/network-get-interfaces", nil, 500, "VM 100 is not running"},
		{"agent not configured", "POST", vm + "101/agent/ping", nil, 500, "No QEMU guest agent configured"},
		{"move to same storage", "POST", vm + "100/move_disk", map[string]string{"disk": "scsi0", "storage": "local-lvm"}, 500, "you can't move to the same storage with same format"},
		{"pool taken", "POST", "/pools", map[string]string{"poolid": "lab"}, 500, "create pool failed: pool 'lab' already exists"},
		{"pool with members", "DELETE", "/pools/lab", nil, 500, "delete pool failed: pool 'lab' is not empty (contains VM 100)"},
		{"missing pool", "GET", "/pools/nope", nil, 500, "pool 'nope' does not exist"},
		{"VM into missing pool", "POST", "/nodes/pve1/qemu", map[string]string{"vmid": "300", "pool": "nope"}, 500, "pool 'nope' does not exist"},
		{"image there already", "POST", "/nodes/pve1/storage/local/download-url", map[string]string{"url": "https://a.example/x.qcow2", "filename": "x.qcow2", "content": "import"}, 500, "refusing to override existing file 'x.qcow2'"},
		{"missing volume", "DELETE", "/nodes/pve1/storage/local/content/local:import%2Fnope.qcow2", nil, 500, "volume 'local:import/nope.qcow2' does not exist"},
		{"disk in use", "DELETE", "/nodes/pve1/storage/local-lvm/content/local-lvm:vm-100-disk-0", nil, 500, "Cannot remove image, a guest with VMID '100' exists! (used as 'scsi0')"},
		{"missing task", "GET", "/nodes/pve1/tasks/UPID:pve1:00000001:00000001:00000001:qmstart:1:root@pam:/status", nil, 400, "no such task"},
		{"IPSet with members", "DELETE", "/cluster/firewall/ipset/admin", nil, 500, "IPSet 'admin' is not empty"},
		{"missing IPSet", "GET", "/cluster/firewall/ipset/nope", nil, 500, "no such IPSet 'nope'"},
		{"missing group", "GET", "/cluster/firewall/groups/nope", nil, 500, "no such security group 'nope'"},
		{"missing rule", "GET", vm + "100/firewall/rules/0", nil, 500, "no rule at position 0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			y := *x
			y.t = t
			y.refuse(tc.code, tc.reason, tc.method, tc.path, tc.params)
		})
	}
}

// TestFieldErrors: a 400 says which parameter is wrong, and why.
func TestFieldErrors(t *testing.T) {
	x := open(t, testOptions(t))
	x.newVM("pve1", 100, nil)
	for _, tc := range []struct {
		name   string
		params map[string]string
		want   map[string]any
	}{
		{"unknown options", map[string]string{"colour": "red", "scsi99": "local-lvm:1"}, map[string]any{
			"colour": "property is not defined in schema and the schema does not allow additional properties",
			"scsi99": "property is not defined in schema and the schema does not allow additional properties",
		}},
		{"not a number", map[string]string{"cores": "many"}, map[string]any{"cores": "type check ('integer') failed - got 'many'"}},
		{"name", map[string]string{"name": "a_b"}, map[string]any{"name": "invalid format - value does not look like a valid DNS name"}},
		{"gateway alone", map[string]string{"ipconfig0": "gw=192.0.2.1"}, map[string]any{"ipconfig0": "invalid format - gateway specified without specifying an IP address"}},
		{"network card", map[string]string{"net0": "model=ether,bridge=vmbr0"}, map[string]any{"net0": "invalid format - model: value 'ether' does not have a value in the enumeration"}},
		{"multicast MAC", map[string]string{"net0": "virtio=01:00:5E:00:00:01"}, map[string]any{"net0": "invalid format - macaddr: value does not look like a valid unicast MAC address"}},
		{"delete and set", map[string]string{"name": "a", "delete": "name"}, map[string]any{"delete": "you can't use '-name' and -delete name' at the same time"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := x.send("PUT", "/nodes/pve1/qemu/100/config", tc.params)
			if d := cmp.Diff(tc.want, r.errors); r.code != 400 || d != "" {
				t.Errorf("code %d, errors (-want +got):\n%s", r.code, d)
			}
		})
	}
	want := map[string]any{"cores": 2., "memory": "1024", "name": "vm100", "scsi0": "local-lvm:vm-100-disk-0,size=8G", "boot": "order=scsi0"}
	if d := cmp.Diff(want, x.config("pve1", 100)); d != "" {
		t.Errorf("refused changes changed something (-want +got):\n%s", d)
	}
}

// TestCanonical: what is written comes back in Proxmox's own spelling.
func TestCanonical(t *testing.T) {
	x := open(t, testOptions(t))
	x.must("POST", "/nodes/pve1/storage/local/download-url", map[string]string{"url": "https://a.example/x.qcow2", "filename": "x.qcow2", "content": "import"})
	for i, tc := range []struct {
		name string
		set  map[string]string
		want map[string]any
	}{
		{"network card", map[string]string{"net0": "model=virtio,bridge=vmbr0,macaddr=bc:24:11:00:00:0a,tag=150,firewall=1"}, map[string]any{"net0": "virtio=bc:24:11:00:00:0a,bridge=vmbr0,firewall=1,tag=150", "boot": "order=net0"}},
		{"new disk", map[string]string{"scsi0": "file=local-lvm:8,iothread=1,discard=on"}, map[string]any{"scsi0": "local-lvm:vm-101-disk-0,discard=on,iothread=1,size=8G", "boot": "order=scsi0"}},
		{"disk of a terabyte", map[string]string{"virtio0": "local-zfs:1024,serial=DATA01"}, map[string]any{"virtio0": "local-zfs:vm-102-disk-0,serial=DATA01,size=1T", "boot": "order=virtio0"}},
		{"imported disk", map[string]string{"scsi0": "file=local-lvm:0,import-from=local:import/x.qcow2,size=3G,"}, map[string]any{"scsi0": "local-lvm:vm-103-disk-0,size=2G", "boot": "order=scsi0"}},
		{"template's disk", map[string]string{"template": "1", "scsi0": "local-lvm:1"}, map[string]any{"template": 1., "scsi0": "local-lvm:base-104-disk-0,size=1G", "boot": "order=scsi0"}},
		{"cloud-init drive", map[string]string{"ide2": "file=local-lvm:cloudinit,media=cdrom"}, map[string]any{"ide2": "local-lvm:vm-105-cloudinit,media=cdrom"}},
		{"empty CD-ROM", map[string]string{"ide2": "none,media=cdrom"}, map[string]any{"ide2": "none,media=cdrom", "boot": "order=ide2"}},
		{"numbers and booleans", map[string]string{"cores": "4", "onboot": "yes", "numa": "0", "memory": "2048", "balloon": "1024"}, map[string]any{"cores": 4., "onboot": 1., "numa": 0., "memory": "2048", "balloon": 1024.}},
		{"tags", map[string]string{"tags": "Server,k3lab;agent"}, map[string]any{"tags": "agent;k3lab;server"}},
		{"password", map[string]string{"cipassword": "hunter2", "ciuser": "k3lab"}, map[string]any{"cipassword": "**********", "ciuser": "k3lab"}},
		{"several disks in order", map[string]string{"scsi10": "local-lvm:1", "scsi2": "local-lvm:2", "boot": "order=scsi2"}, map[string]any{"scsi2": "local-lvm:vm-110-disk-0,size=2G", "scsi10": "local-lvm:vm-110-disk-1,size=1G", "boot": "order=scsi2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			y := *x
			y.t = t
			p := map[string]string{"vmid": vmidText(100 + i)}
			for k, v := range tc.set {
				p[k] = v
			}
			y.must("POST", "/nodes/pve1/qemu", p)
			if d := cmp.Diff(tc.want, y.config("pve1", 100+i)); d != "" {
				t.Errorf("config (-want +got):\n%s", d)
			}
		})
	}
}

// TestMACAddress: a card that is set without an address gets a new one, as at
// Proxmox; clones get new ones, too.
func TestMACAddress(t *testing.T) {
	x := open(t, testOptions(t))
	x.newVM("pve1", 100, map[string]string{"net0": "virtio,bridge=vmbr0"})
	mac := func(vmid int) string {
		m, _, _ := strings.Cut(x.config("pve1", vmid)["net0"].(string), ",")
		if !strings.HasPrefix(m, "virtio=BC:24:11:") {
			t.Fatalf("net0 of VM %d begins with %q", vmid, m)
		}
		return m
	}
	first := mac(100)
	x.ok("PUT", "/nodes/pve1/qemu/100/config", map[string]string{"description": "other"})
	if mac(100) != first {
		t.Error("an unrelated change changed the MAC address")
	}
	x.ok("PUT", "/nodes/pve1/qemu/100/config", map[string]string{"net0": "virtio,bridge=vmbr1"})
	second := mac(100)
	x.must("POST", "/nodes/pve1/qemu/100/clone", map[string]string{"newid": "101", "name": "b"})
	if third := mac(101); second == first || third == second {
		t.Errorf("MAC addresses repeat: %s, %s, %s", first, second, third)
	}
}

// TestAuthentication: who may call, and what the others are told.
func TestAuthentication(t *testing.T) {
	o := testOptions(t)
	o.Tokens = []Token{{User: "k3lab@pve", ID: "view", Secret: "s3", Privileges: []string{"VM.Audit", "Sys.Audit"}}}
	x := open(t, o)
	x.newVM("pve1", 100, nil)
	admin := adminToken()
	view := "PVEAPIToken=k3lab@pve!view=s3"
	for _, tc := range []struct {
		name, auth, method, path string
		params                   map[string]string
		code                     int
		reason                   string
	}{
		{"no credentials", "", "GET", "/version", nil, 401, "No ticket"},
		{"other scheme", "Bearer x", "GET", "/version", nil, 401, "No ticket"},
		{"wrong secret", "PVEAPIToken=" + admin.Name() + "=nope", "GET", "/version", nil, 401, "invalid token value!"},
		{"unknown token", "PVEAPIToken=root@pam!nope=x", "GET", "/version", nil, 401, "no such token 'nope' for user 'root@pam'"},
		{"no token in name", "PVEAPIToken=root@pam=x", "GET", "/version", nil, 401, "no tokenid specified"},
		{"may look", view, "GET", "/nodes/pve1/qemu/100/config", nil, 200, "OK"},
		{"may not start", view, "POST", "/nodes/pve1/qemu/100/status/start", nil, 403, "Permission check failed (/vms/100, VM.PowerMgmt)"},
		{"may not create", view, "POST", "/nodes/pve1/qemu", map[string]string{"vmid": "101"}, 403, "Permission check failed (/vms/101, VM.Allocate)"},
		{"may not see storages", view, "GET", "/nodes/pve1/storage/local/content", nil, 403, "Permission check failed (/storage/local, Datastore.Audit)"},
		{"may not make faults", view, "POST", "/k3lab/faults", nil, 403, "Permission check failed (/, Sys.Modify)"},
		{"wrong password", "", "POST", "/access/ticket", map[string]string{"username": "root@pam", "password": "x"}, 401, "authentication failure"},
		{"unknown user", "", "POST", "/access/ticket", map[string]string{"username": "eve@pam", "password": ""}, 400, "Parameter verification failed."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			y := *x
			y.t, y.auth = t, tc.auth
			y.refuse(tc.code, tc.reason, tc.method, tc.path, tc.params)
		})
	}
}

// TestTicket: a login's ticket is a cookie, and changes need the CSRF token.
func TestTicket(t *testing.T) {
	o := testOptions(t)
	now := time.Now()
	o.Clock = func() time.Time { return now }
	x := open(t, o)
	x.auth = ""
	got := x.ok("POST", "/access/ticket", map[string]string{"username": "root@pam", "password": "hunter2"}).(map[string]any)
	call := func(method, csrf string) reply {
		req, err := http.NewRequest(method, x.url+prefix+"/pools", strings.NewReader("poolid=a"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Cookie", "PVEAuthCookie="+url.QueryEscape(got["ticket"].(string)))
		req.Header.Set("CSRFPreventionToken", csrf)
		return x.do(req)
	}
	csrf := got["CSRFPreventionToken"].(string)
	for _, tc := range []struct {
		name, method, csrf string
		after              time.Duration
		code               int
		reason             string
	}{
		{"read", "GET", "", 0, 200, "OK"},
		{"change without CSRF token", "POST", "", 0, 401, "Permission denied - invalid csrf token"},
		{"change with the ticket as CSRF token", "POST", got["ticket"].(string), 0, 401, "Permission denied - invalid csrf token"},
		{"change", "POST", csrf, 0, 200, "OK"},
		{"too late", "GET", "", 3 * time.Hour, 401, "permission denied - invalid PVE ticket"},
	} {
		now = now.Add(tc.after)
		if r := call(tc.method, tc.csrf); r.code != tc.code || r.reason != tc.reason {
			t.Errorf("%s: %d %q, want %d %q", tc.name, r.code, r.reason, tc.code, tc.reason)
		}
	}
}

// TestJSONBody: go-proxmox sends JSON, with real numbers, booleans and null.
func TestJSONBody(t *testing.T) {
	x := open(t, testOptions(t))
	r := x.sendJSON("POST", "/nodes/pve1/qemu", map[string]any{"vmid": 100, "onboot": true, "memory": 2048, "tags": []string{"b", "a"}, "name": nil})
	if r.code != 200 {
		t.Fatalf("%d %s %v", r.code, r.reason, r.errors)
	}
	if exit := x.wait(r.data.(string)); exit != "OK" {
		t.Fatal(exit)
	}
	want := map[string]any{"onboot": 1., "memory": "2048", "tags": "a;b"}
	if d := cmp.Diff(want, x.config("pve1", 100)); d != "" {
		t.Errorf("config (-want +got):\n%s", d)
	}
}
