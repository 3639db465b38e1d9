package tfprovider

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// render writes the inventory. Ansible finds paths relative to the inventory by
// {{ inventory_dir }}, so the workspace may be moved.
func (m *inventoryModel) render() []byte {
	groups := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(m.Machines)) {
		machine := m.Machines[name]
		group := machine.Role.ValueString()
		if group != "server" && group != "agent" {
			group = "unmanaged"
		}
		groups[group] = append(groups[group], name+" ansible_host="+machine.IP.ValueString())
	}
	var out bytes.Buffer
	out.WriteString("# Written by Terraform (k3lab_inventory); changes made here are put back.\n")
	section := func(name string, lines ...string) {
		fmt.Fprintf(&out, "\n[%s]\n", name)
		for _, l := range lines {
			out.WriteString(l + "\n")
		}
	}
	section("server", groups["server"]...)
	section("agent", groups["agent"]...)
	section("k3s_cluster:children", "server", "agent")
	section("master:children", "server")
	section("worker:children", "agent")
	if len(groups["unmanaged"]) > 0 {
		section("unmanaged", groups["unmanaged"]...)
	}
	section("all:vars",
		"ansible_user="+m.User.ValueString(),
		"ansible_ssh_private_key_file="+m.path(m.PrivateKeyPath.ValueString()),
		"ansible_ssh_common_args='-o UserKnownHostsFile=\""+m.path(m.KnownHostsPath.ValueString())+"\" -o StrictHostKeyChecking=accept-new'",
	)
	return out.Bytes()
}

// path is a path as the inventory names it: from its own folder on where it lies
// in the same workspace, which is two folders above.
func (m *inventoryModel) path(p string) string {
	here, err := filepath.Abs(filepath.Dir(m.Path.ValueString()))
	if err != nil {
		return p
	}
	there, err := filepath.Abs(p)
	if err != nil {
		return p
	}
	relative, err := filepath.Rel(here, there)
	if err != nil || strings.HasPrefix(relative, "../../../") {
		return there
	}
	return "{{ inventory_dir }}/" + filepath.ToSlash(relative)
}
