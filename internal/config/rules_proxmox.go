package config

import "fmt"

// vmids checks that no two VMs of an endpoint, templates included, have the same
// ID: Proxmox VE knows them by nothing else.
func (c *checker) vmids(lab *Lab) {
	type place struct {
		endpoint string
		vmid     int
	}
	type owner struct {
		what, key string
		users     bool // the user's template: hypervisors that share a storage may share it
	}
	first := map[place]owner{}
	for _, name := range lab.HypervisorNames() {
		h := lab.Proxmox.Hypervisors[name]
		if h.TemplateVMID == 0 {
			continue
		}
		at := place{h.Endpoint, h.TemplateVMID}
		key := "proxmox.hypervisors." + name + ".template_vmid"
		if other, ok := first[at]; ok && other.users && h.UserTemplate {
			continue
		} else if ok {
			c.errorAt(key, "give every hypervisor of an endpoint a template ID of its own", "%d is %s already (%s)", at.vmid, other.what, c.line(other.key, key))
			continue
		}
		first[at] = owner{"the template of " + name, key, h.UserTemplate}
	}
	for _, m := range lab.VirtualMachines() {
		h, ok := lab.Proxmox.Hypervisors[m.Hypervisor]
		if !ok || m.TemplateVMID == 0 {
			continue
		}
		at := place{h.Endpoint, m.TemplateVMID}
		if _, ok := first[at]; !ok {
			first[at] = owner{"the template of " + m.Name, machineKey(m, "template_vmid"), true}
		}
	}
	for _, m := range lab.VirtualMachines() {
		h, ok := lab.Proxmox.Hypervisors[m.Hypervisor]
		if !ok || m.VMID == 0 {
			continue
		}
		at := place{h.Endpoint, m.VMID}
		key := machineKey(m, "vmid")
		if other, ok := first[at]; ok {
			c.errorAt(key, "choose an ID that no VM or template of endpoint "+h.Endpoint+" has", "%d is %s already (%s)", m.VMID, other.what, c.line(other.key, key))
			continue
		}
		first[at] = owner{"the VM ID of " + m.Name, key, false}
	}
}

// templates checks that every VM has something to be cloned from, and every
// template something to be made from.
func (c *checker) templates(lab *Lab) {
	made := ""
	for _, name := range lab.HypervisorNames() {
		h := lab.Proxmox.Hypervisors[name]
		key := "proxmox.hypervisors." + name
		switch {
		case h.TemplateVMID != 0 && !h.UserTemplate && made == "":
			made = name
		case h.TemplateVMID == 0 && h.UserTemplate && !c.written(key+".template_vmid"):
			c.errorAt(key+".user_template", "add template_vmid: the VM ID of your template", "which template is yours is not said")
		}
	}
	for _, m := range lab.VirtualMachines() {
		h, ok := lab.Proxmox.Hypervisors[m.Hypervisor]
		key := "proxmox.hypervisors." + m.Hypervisor
		if ok && !m.Adopted && m.TemplateVMID == 0 && !h.UserTemplate && h.TemplateVMID == 0 && !c.written(key+".template_vmid") {
			c.errorAt(key, fmt.Sprintf("add template_vmid, such as 9001: %s is cloned from it", m.Name), "template_vmid is missing")
		}
	}
	if made != "" && !c.written("proxmox.image") {
		c.errorf(c.sources.span(stem(proxmoxFile)), "add it, or set user_template: true where the template is your own",
			"image is missing: the template of %s is made from it", made)
	}
}
