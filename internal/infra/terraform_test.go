package infra_test

import (
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/infra"
	"github.com/k3lab/k3lab/internal/sandbox/pveapi"
)

var firstPlan = []string{
	"create home pool: k3lab",
	"create pve1 image: debian-13-20260110.qcow2",
	"create pve2 image: debian-13-20260110.qcow2",
	"create pve1 template: vm 9001",
	"create pve2 template: vm 9002",
	"create agent-1 : vm 203 on pve2, 2 cores, 2048 MiB, 8 GiB",
	"create balancer : vm 206 on pve1, 2 cores, 2048 MiB, 8 GiB",
	"create server-1 : vm 201 on pve1, 2 cores, 2048 MiB, 8 GiB",
	"create server-2 : vm 202 on pve2, 2 cores, 2048 MiB, 8 GiB",
	"create workspace ansible/inventory/hosts.ini:",
	"create workspace ssh key:",
	"create workspace output machines:",
	"create workspace output ssh_fingerprint:",
}

// TestChanges makes a lab and changes one thing after the other; each time it
// checks what is planned, and that after applying it nothing is.
func TestChanges(t *testing.T) {
	tests := []struct {
		name   string
		change func(r *rig)
		want   []string
	}{
		{"nothing", func(*rig) {}, nil},
		{
			"template removed by hand",
			func(r *rig) { r.task("pve1", http.MethodDelete, "/nodes/pve1/qemu/9001?purge=1", nil) },
			[]string{"create pve1 template: vm 9001"},
		},
		{
			"image removed by hand",
			func(r *rig) {
				r.task("pve2", http.MethodDelete, "/nodes/pve2/storage/local/content/local:import%2Fdebian-13-20260110.qcow2", nil)
			},
			[]string{"create pve2 image: debian-13-20260110.qcow2"},
		},
		{
			"moved to another hypervisor by hand",
			func(r *rig) {
				r.task("pve2", http.MethodPost, "/nodes/pve2/qemu/202/migrate", url.Values{"target": {"pve1"}, "online": {"1"}, "with-local-disks": {"1"}})
			},
			[]string{"update server-2 : hypervisor pve1 → pve2"},
		},
		{
			"moved to another hypervisor by its setting",
			func(r *rig) { r.settings.Server2 = "pve1" },
			[]string{"update server-2 : hypervisor pve2 → pve1", "update workspace output machines: server-2.hypervisor pve2 → pve1"},
		},
		{
			"powered off",
			func(r *rig) { r.task("pve1", http.MethodPost, "/nodes/pve1/qemu/201/status/stop", url.Values{}) },
			[]string{"start server-1 : it is powered off"},
		},
		{
			"disks grown",
			func(r *rig) { r.settings.DiskGiB, r.settings.AgentDiskGiB = 10, 30 },
			[]string{
				"update agent-1 : disk_gib 8 → 10, extra_disks[0].size_gib 20 → 30",
				"update balancer : disk_gib 8 → 10",
				"update server-1 : disk_gib 8 → 10",
				"update server-2 : disk_gib 8 → 10",
			},
		},
		{
			"memory grown",
			func(r *rig) { r.settings.MemoryMiB = 3072 },
			[]string{
				"update agent-1 : memory_mib 2048 → 3072 (takes effect when the machine restarts)",
				"update balancer : memory_mib 2048 → 3072 (takes effect when the machine restarts)",
				"update server-1 : memory_mib 2048 → 3072 (takes effect when the machine restarts)",
				"update server-2 : memory_mib 2048 → 3072 (takes effect when the machine restarts)",
			},
		},
		{
			"one more key belongs to the platform layer",
			func(r *rig) {
				r.settings.Keys = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOKK8teBRq2Lc7ulEfsAjscvOq+LNcvQ35ybIJmT5zm/ me@laptop"
			},
			[]string{"update workspace ssh key: user_public_keys[1] \"\" → \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOKK8teBRq2Lc7ulEfsAjscvOq+LNcvQ35ybIJmT5zm/ me@laptop\""},
		},
		{
			"disabled",
			func(r *rig) { r.settings.AgentEnabled = false },
			[]string{
				"delete agent-1 : vm 203 on pve2, 2 cores, 3072 MiB, 10 GiB",
				"update workspace ansible/inventory/hosts.ini: machines.agent-1.ip 192.0.2.13 → \"\", machines.agent-1.labels.tier 1 → \"\", machines.agent-1.role agent → \"\"",
				"update workspace output machines: agent-1.hypervisor pve2 → \"\", agent-1.ip 192.0.2.13 → \"\", agent-1.role agent → \"\"",
			},
		},
		{
			"removed by hand",
			func(r *rig) {
				r.task("pve1", http.MethodPost, "/nodes/pve1/qemu/201/status/stop", url.Values{})
				r.task("pve1", http.MethodDelete, "/nodes/pve1/qemu/201?purge=1", nil)
			},
			[]string{"create server-1 : vm 201 on pve1, 2 cores, 3072 MiB, 10 GiB"},
		},
		{
			"the address Proxmox chose is kept when named",
			func(r *rig) {
				var config struct{ Net0 string }
				r.api(http.MethodGet, "/nodes/pve1/qemu/201/config", nil, &config)
				_, mac, _ := strings.Cut(strings.Split(config.Net0, ",")[0], "=")
				r.settings.MAC = strings.ToLower(mac)
			},
			nil,
		},
		{
			"a new image rebuilds templates only",
			func(r *rig) { r.settings.ImageDate, r.settings.Checksum = "20260301", strings.Repeat("cd", 64) },
			[]string{
				"replace pve1 image: checksum " + strings.Repeat("ab", 64) + " → " + strings.Repeat("cd", 64) + ", file_name debian-13-20260110.qcow2 → debian-13-20260301.qcow2, url https://images.example/20260110/debian-13-genericcloud-amd64.qcow2 → https://images.example/20260301/debian-13-genericcloud-amd64.qcow2",
				"replace pve2 image: checksum " + strings.Repeat("ab", 64) + " → " + strings.Repeat("cd", 64) + ", file_name debian-13-20260110.qcow2 → debian-13-20260301.qcow2, url https://images.example/20260110/debian-13-genericcloud-amd64.qcow2 → https://images.example/20260301/debian-13-genericcloud-amd64.qcow2",
				"replace pve1 template:",
				"replace pve2 template:",
			},
		},
	}
	r := newRig(t)
	if diff := cmp.Diff(firstPlan, r.mustUp()); diff != "" {
		t.Errorf("first plan (-want +got):\n%s", diff)
	}
	for _, tt := range tests {
		r.run(tt.name, func(t *testing.T) {
			tt.change(r)
			if diff := cmp.Diff(tt.want, r.mustUp()); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
			again, err := r.plan()
			if err != nil {
				t.Fatal(err)
			}
			if len(again) > 0 {
				t.Errorf("planned once more:\n%s", strings.Join(again, "\n"))
			}
		})
	}
}

// TestRefused makes a lab and breaks one thing after the other; each time it
// checks that a plan says so and that nothing is changed.
func TestRefused(t *testing.T) {
	tests := map[string]struct {
		arrange func(r *rig)
		want    string
		kind    fault.Kind
	}{
		"another vmid": {
			func(r *rig) { r.settings.ServerVMID = 301 },
			"server-1: the plan would destroy it and make it anew, because of vmid 201 → 301 (try: put the setting back; to really make it anew, run k3lab up once with `enabled: false` for server-1)",
			fault.Invalid,
		},
		"a smaller disk": {
			func(r *rig) { r.settings.AgentDiskGiB = 10 },
			"agent-1: extra_disks[0].size_gib 20 → 10: a disk cannot shrink (try: extra_disks[0].size_gib: 20)",
			fault.Invalid,
		},
		"wrong token": {
			func(r *rig) { r.tokens["home"] = "root@pam!test=11111111-1111-4111-8111-111111111111" },
			"endpoint home: the API token is refused (try: sops secrets.sops.yaml, and set proxmox_api_tokens.home: user@realm!id=uuid)",
			fault.Invalid,
		},
		"no token": {
			func(r *rig) { delete(r.tokens, "home") },
			"endpoint home: no API token is set (try: sops secrets.sops.yaml, and set proxmox_api_tokens.home: user@realm!id=uuid)",
			fault.Invalid,
		},
		"api down": {
			func(r *rig) { r.settings.URL = "https://" + unusedAddress(r.t) },
			"endpoint home: the Proxmox API does not answer: Get \"URL/api2/json/version\": dial tcp HOST: connect: connection refused (try: check that URL is on, and endpoints.home.url in terraform/vars/proxmox.yaml)",
			fault.Unreachable,
		},
		"unknown authority": {
			func(r *rig) { r.settings.CAFile = "" },
			"endpoint home: its certificate is signed by an unknown authority (try: copy /etc/pve/pve-root-ca.pem of a hypervisor into the workspace and name it in endpoints.home.ca_file)",
			fault.Invalid,
		},
		"stale providers": {
			func(r *rig) { r.write(infra.ProvidersPath, "", 0o644) },
			"terraform/providers.k3lab.tf: does not fit the endpoints of terraform/vars/proxmox.yaml (try: k3lab fmt)",
			fault.Invalid,
		},
	}
	r := newRig(t)
	r.mustUp()
	statePath := filepath.Join(r.dir, "terraform", "terraform.tfstate")
	state, good := read(t, statePath), r.settings
	for name, tt := range tests {
		r.run(name, func(t *testing.T) {
			r.settings, r.tokens = good, map[string]string{"home": administrator}
			tt.arrange(r)
			got, err := r.up(t.Context())
			if len(got) > 0 {
				t.Errorf("planned: %v", got)
			}
			text := ""
			if err != nil {
				text = strings.NewReplacer(r.settings.URL, "URL", strings.TrimPrefix(r.settings.URL, "https://"), "HOST").Replace(err.Error())
			}
			if text != tt.want {
				t.Errorf("got  %s\nwant %s", text, tt.want)
			}
			if kind := fault.KindOf(err); kind != tt.kind {
				t.Errorf("exit code %d, want %d", kind, tt.kind)
			}
			if diff := cmp.Diff(state, read(t, statePath)); diff != "" {
				t.Errorf("the state has changed:\n%s", diff)
			}
			if _, err := os.Stat(filepath.Join(r.dir, ".k3lab", "infra")); err == nil {
				t.Error("plan or tokens were left on disk")
			}
			r.write(infra.ProvidersPath, infra.ProvidersFile(r.lab()), 0o644)
		})
	}
}

// TestFails lets applying fail and checks what is said, and that it goes on when
// the cause is gone.
func TestFails(t *testing.T) {
	tests := map[string]struct {
		arrange, mend func(r *rig)
		want          string
	}{
		"no such bridge": {
			func(r *rig) {
				r.faults(pveapi.Faults{Tasks: []pveapi.TaskFault{{Type: "qmstart", VMID: 201, Exit: "bridge 'vmbr9' does not exist"}}})
			},
			func(r *rig) { r.faults(pveapi.Faults{}) },
			"server-1: the hypervisor has no bridge vmbr9 (try: set bridge in terraform/vars/network.yaml)",
		},
		"disk full": {
			func(r *rig) {
				r.faults(pveapi.Faults{Tasks: []pveapi.TaskFault{{Type: "qmclone", VMID: 202, Exit: "clone failed: lvcreate 'pve/vm-202-disk-0' error: Insufficient free space", Count: -1}}})
			},
			func(r *rig) { r.faults(pveapi.Faults{}) },
			"server-2: the storage is full (try: pvesm status on the hypervisor; free some space or set another storage in machines.server-2 in terraform/vars/nodes.yaml)",
		},
		"no such storage": {
			func(r *rig) { r.settings.Storage = "fast" },
			func(r *rig) { r.settings.Storage = "local-lvm" },
			"pve1 template: storage fast cannot be used there (try: pvesm status on the hypervisor, then set storage or image_storage in terraform/vars)",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			tt.arrange(r)
			_, err := r.up(t.Context())
			if err == nil || !strings.Contains(err.Error()+"\n", tt.want+"\n") {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			tt.mend(r)
			r.mustUp()
			if again, err := r.plan(); err != nil || len(again) > 0 {
				t.Errorf("planned once more: %v, %v", again, err)
			}
		})
	}
}

func TestStateIsCopiedBeforeEveryApply(t *testing.T) {
	r := newRig(t)
	r.mustUp()
	backups := filepath.Join(r.dir, ".k3lab", "state-backups")
	before := read(t, filepath.Join(r.dir, "terraform", "terraform.tfstate"))
	r.settings.MemoryMiB = 3072
	r.mustUp()
	copies, err := filepath.Glob(filepath.Join(backups, "*"))
	if err != nil || len(copies) != 1 {
		t.Fatalf("copies: %v, %v", copies, err)
	}
	sealed, err := os.Open(copies[0])
	if err != nil {
		t.Fatal(err)
	}
	defer sealed.Close()
	plain, err := age.Decrypt(sealed, r.identity)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(plain)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSpace(before), strings.TrimSpace(string(text))); diff != "" {
		t.Errorf("copy (-state +copy):\n%s", diff)
	}
}

func TestDestroy(t *testing.T) {
	r := newRig(t)
	r.mustUp()
	r.destroy()
	if vms, err := r.vms(); err != nil || len(vms) > 0 {
		t.Errorf("left behind: %v, %v", vms, err)
	}
	if diff := cmp.Diff(firstPlan, r.mustUp()); diff != "" {
		t.Errorf("plan after it (-want +got):\n%s", diff)
	}
}
