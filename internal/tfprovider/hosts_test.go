package tfprovider

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

func model(dir string, machines map[string][2]string) *inventoryModel {
	m := &inventoryModel{
		Path: types.StringValue(filepath.Join(dir, "ansible/inventory/hosts.ini")), User: types.StringValue("k3lab"),
		PrivateKeyPath: types.StringValue(filepath.Join(dir, ".k3lab/ssh/id_ed25519")),
		KnownHostsPath: types.StringValue(filepath.Join(dir, ".k3lab/known_hosts")),
		Machines:       map[string]inventoryMachine{},
	}
	for name, v := range machines {
		m.Machines[name] = inventoryMachine{Role: types.StringValue(v[0]), IP: types.StringValue(v[1])}
	}
	return m
}

func TestRender(t *testing.T) {
	m := model("/some lab", map[string][2]string{
		"server-2": {"server", "192.0.2.12"}, "server-1": {"server", "192.0.2.11"},
		"agent-1": {"agent", "2001:db8::21"}, "nas": {"none", "192.0.2.31"},
	})
	want := `# Written by Terraform (k3lab_inventory); changes made here are put back.

[server]
server-1 ansible_host=192.0.2.11
server-2 ansible_host=192.0.2.12

[agent]
agent-1 ansible_host=2001:db8::21

[k3s_cluster:children]
server
agent

[master:children]
server

[worker:children]
agent

[k3s_cluster:vars]
ansible_user=k3lab
ansible_ssh_private_key_file={{ inventory_dir }}/../../.k3lab/ssh/id_ed25519
ansible_ssh_common_args='-o \'UserKnownHostsFile="{{ inventory_dir }}/../../.k3lab/known_hosts"\' -o StrictHostKeyChecking=accept-new'

[unmanaged]
nas ansible_host=192.0.2.31

[unmanaged:vars]
ansible_user=k3lab
ansible_ssh_private_key_file={{ inventory_dir }}/../../.k3lab/ssh/id_ed25519
ansible_ssh_common_args='-o \'UserKnownHostsFile="{{ inventory_dir }}/../../.k3lab/known_hosts"\' -o StrictHostKeyChecking=accept-new'
`
	if diff := cmp.Diff(want, string(m.render())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	m.PrivateKeyPath = types.StringValue("/home/me/.ssh/id_ed25519") // not in the workspace
	m.Machines = nil
	want = `# Written by Terraform (k3lab_inventory); changes made here are put back.

[server]

[agent]

[k3s_cluster:children]
server
agent

[master:children]
server

[worker:children]
agent

[k3s_cluster:vars]
ansible_user=k3lab
ansible_ssh_private_key_file=/home/me/.ssh/id_ed25519
ansible_ssh_common_args='-o \'UserKnownHostsFile="{{ inventory_dir }}/../../.k3lab/known_hosts"\' -o StrictHostKeyChecking=accept-new'
`
	if diff := cmp.Diff(want, string(m.render())); diff != "" {
		t.Errorf("empty (-want +got):\n%s", diff)
	}
}

func TestCheck(t *testing.T) {
	tests := map[string]struct {
		name, role, ip, user string
		want                 string
	}{
		"good":      {"server-1", "server", "192.0.2.11", "k3lab", ""},
		"line":      {"a\n[all:vars]", "server", "192.0.2.11", "k3lab", `"a\n[all:vars]" cannot be a machine's name`},
		"range":     {"a[1:9]", "server", "192.0.2.11", "k3lab", `"a[1:9]" cannot be a machine's name`},
		"role":      {"a", "master", "192.0.2.11", "k3lab", `a: "master" is no role: server, agent or none`},
		"address":   {"a", "agent", "192.0.2.300", "k3lab", `a: "192.0.2.300" is no address`},
		"more vars": {"a", "agent", "192.0.2.1 x=1", "k3lab", `a: "192.0.2.1 x=1" is no address`},
		"user":      {"a", "agent", "192.0.2.1", "me you", `"me you" cannot be a user's name`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := model("/lab", map[string][2]string{tt.name: {tt.role, tt.ip}})
			m.User = types.StringValue(tt.user)
			var diags diag.Diagnostics
			m.check(&diags)
			got := ""
			for _, d := range diags.Errors() {
				got += d.Detail()
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
