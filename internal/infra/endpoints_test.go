package infra_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/infra"
)

// TestTwoEndpoints makes a lab of two hypervisors that are no cluster.
func TestTwoEndpoints(t *testing.T) {
	r := newRig(t)
	r.VMs = nil // the rig only looks behind the first endpoint
	garage, address := r.serve("garage", "pve2")
	ca, err := os.ReadFile(garage.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	r.write("terraform/ca/garage.pem", string(ca), 0o644)
	r.tokens["garage"] = administrator
	r.files["terraform/vars/proxmox.yaml"] = strings.NewReplacer(
		"hypervisors:", `  garage: {url: "https://`+address+`", ca_file: terraform/ca/garage.pem}`+"\nhypervisors:",
		"pve2: {endpoint: home", "pve2: {endpoint: garage").Replace(r.files["terraform/vars/proxmox.yaml"])
	r.adjust = func(lab *config.Lab) {
		lab.Proxmox.Endpoints = append(lab.Proxmox.Endpoints, config.Endpoint{Name: "garage", URL: "https://" + address, CAFile: "terraform/ca/garage.pem"})
		h := lab.Proxmox.Hypervisors["pve2"]
		h.Endpoint = "garage"
		lab.Proxmox.Hypervisors["pve2"] = h
	}
	r.write(infra.ProvidersPath, infra.ProvidersFile(r.lab()), 0o644)
	want := slices.Concat([]string{"create garage pool: k3lab"}, firstPlan)
	if diff := cmp.Diff(want, r.mustUp()); diff != "" {
		t.Errorf("first plan (-want +got):\n%s", diff)
	}
	if again, err := r.plan(); err != nil || len(again) > 0 {
		t.Errorf("planned once more: %v, %v", again, err)
	}
	vms, err := r.vms()
	if err != nil {
		t.Fatal(err)
	}
	var here []string
	for _, vm := range vms {
		here = append(here, vm.Name)
	}
	slices.Sort(here)
	if diff := cmp.Diff([]string{"balancer", "k3lab-template-9001", "server-1"}, here); diff != "" {
		t.Errorf("behind the first endpoint (-want +got):\n%s", diff)
	}

	r.settings.Server2 = "pve1"
	_, err = r.plan()
	wantErr := "server-2: the plan would destroy it (endpoint garage → home: machines do not move between endpoints), but its settings want it (try: put the setting back; to really make it anew, run k3lab up once with `enabled: false` for server-2)"
	if err == nil || err.Error() != wantErr {
		t.Errorf("got  %v\nwant %s", err, wantErr)
	}
	r.settings.Server2 = "pve2"
	r.tokens["garage"] = "root@pam!test=wrong"
	_, err = r.plan()
	wantErr = "endpoint garage: the API token is refused (try: sops secrets.sops.yaml, and set proxmox_api_tokens.garage: user@realm!id=uuid)"
	if err == nil || err.Error() != wantErr {
		t.Errorf("got  %v\nwant %s", err, wantErr)
	}
}

// TestMetalOnly plans a lab without any hypervisor.
func TestMetalOnly(t *testing.T) {
	r := newRig(t)
	delete(r.files, "terraform/vars/proxmox.yaml")
	if err := os.Remove(filepath.Join(r.dir, "terraform/vars/proxmox.yaml")); err != nil {
		t.Fatal(err)
	}
	r.files["terraform/vars/nodes.yaml"] = "machines:\n  metal: {role: server, hypervisor: none, ip: 192.0.2.15}\n"
	r.adjust = func(lab *config.Lab) {
		*lab = config.Lab{Machines: []*config.Machine{{Name: "metal", Role: config.RoleServer, Enabled: true, Hypervisor: config.HypervisorNone}}}
	}
	r.write(infra.ProvidersPath, infra.ProvidersFile(r.lab()), 0o644)
	want := firstPlan[len(firstPlan)-4:]
	if diff := cmp.Diff(want, r.mustUp()); diff != "" {
		t.Errorf("first plan (-want +got):\n%s", diff)
	}
	if again, err := r.plan(); err != nil || len(again) > 0 {
		t.Errorf("planned once more: %v, %v", again, err)
	}
}

// TestUserTemplate clones a template of the user's and leaves it alone.
func TestUserTemplate(t *testing.T) {
	r := newRig(t)
	for node, id := range map[string]string{"pve1": "9001", "pve2": "9002"} {
		r.task(node, "POST", "/nodes/"+node+"/qemu", map[string][]string{
			"vmid": {id}, "name": {"mine-" + id}, "scsihw": {"virtio-scsi-single"}, "scsi0": {"local-lvm:4"},
		})
		r.task(node, "POST", "/nodes/"+node+"/qemu/"+id+"/template", map[string][]string{})
	}
	r.files["terraform/vars/proxmox.yaml"] = strings.NewReplacer("9001}", "9001, user_template: true}", "9002}", "9002, user_template: true}").
		Replace(r.files["terraform/vars/proxmox.yaml"])
	want := slices.Concat(firstPlan[:1], firstPlan[5:])
	if diff := cmp.Diff(want, r.mustUp()); diff != "" {
		t.Errorf("first plan (-want +got):\n%s", diff)
	}
	if again, err := r.plan(); err != nil || len(again) > 0 {
		t.Errorf("planned once more: %v, %v", again, err)
	}
	r.destroy()
	vms, err := r.vms()
	if err != nil {
		t.Fatal(err)
	}
	if len(vms) != 2 || vms[9001].Name != "mine-9001" || vms[9002].Name != "mine-9002" {
		t.Errorf("left: %v", vms)
	}
}
