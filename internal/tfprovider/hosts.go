package tfprovider

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
)

// render writes the inventory. Ansible finds paths relative to the inventory by
// {{ inventory_dir }}, so the workspace may be moved.
func (m *inventoryModel) render() []byte {
	groups := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(m.Machines)) {
		machine := m.Machines[name]
		group := machine.Role.ValueString()
		if group == "none" {
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
	// Not for all: what the controller itself runs has nothing to do with it.
	access := []string{
		"ansible_user=" + m.User.ValueString(),
		"ansible_ssh_private_key_file=" + m.path(m.PrivateKeyPath.ValueString()),
		// Quoted for ssh, which splits the option at spaces, within quotes for
		// Ansible's own splitting, within a string of the inventory.
		`ansible_ssh_common_args='-o \'UserKnownHostsFile="` + m.path(m.KnownHostsPath.ValueString()) + `"\' -o StrictHostKeyChecking=accept-new'`,
	}
	section("k3s_cluster:vars", access...)
	if len(groups["unmanaged"]) > 0 {
		section("unmanaged", groups["unmanaged"]...)
		section("unmanaged:vars", access...)
	}
	return out.Bytes()
}

// What stands in an inventory as it is. Anything else could end a line or be
// taken for a range of machines, a variable or a template.
var (
	machineName = regexp.MustCompile(`^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$`)
	loginName   = regexp.MustCompile(`^[A-Za-z_][-._A-Za-z0-9]*$`)
)

// check reports what the inventory cannot say. k3lab validate finds the same
// earlier, but Terraform also runs without it.
func (m *inventoryModel) check(diags *diag.Diagnostics) {
	for _, name := range slices.Sorted(maps.Keys(m.Machines)) {
		machine, at := m.Machines[name], path.Root("machines").AtMapKey(name)
		if !machineName.MatchString(name) {
			diags.AddAttributeError(at, "k3lab_inventory: machine name", fmt.Sprintf("%q cannot be a machine's name", name))
		}
		if role := machine.Role.ValueString(); role != "server" && role != "agent" && role != "none" {
			diags.AddAttributeError(at.AtName("role"), "k3lab_inventory: role", fmt.Sprintf("%s: %q is no role: server, agent or none", name, role))
		}
		if _, err := netip.ParseAddr(machine.IP.ValueString()); err != nil {
			diags.AddAttributeError(at.AtName("ip"), "k3lab_inventory: address", fmt.Sprintf("%s: %q is no address", name, machine.IP.ValueString()))
		}
	}
	if user := m.User.ValueString(); !loginName.MatchString(user) {
		diags.AddAttributeError(path.Root("user"), "k3lab_inventory: user", fmt.Sprintf("%q cannot be a user's name", user))
	}
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
