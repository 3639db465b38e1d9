package config

import (
	"maps"
	"slices"
	"strings"
)

func (c *checker) uniqueMACs(lab *Lab) {
	first := map[string]*Machine{}
	for _, m := range enabled(lab) {
		if m.MAC == "" {
			continue
		}
		if other := first[m.MAC]; other != nil {
			key := machineKey(m, "mac")
			c.errorAt(key, "give every machine a MAC address of its own, or none", "%s is the MAC address of %s already (%s)", m.MAC, other.Name, c.line(machineKey(other, "mac"), key))
			continue
		}
		first[m.MAC] = m
	}
}

// uniqueDisks checks the disks of each machine: the serial and the mount point
// tell them apart there, and only there.
func (c *checker) uniqueDisks(lab *Lab) {
	for _, m := range lab.Machines {
		list := machineKey(m, "extra_disks")
		if len(m.ExtraDisks) > mostExtraDisks {
			c.errorAt(list, "leave some out", "%d disks, and a machine can have %d besides its own", len(m.ExtraDisks), mostExtraDisks)
		}
		serials, mounts := map[string]int{}, map[string]int{}
		for i, d := range m.ExtraDisks {
			c.uniqueIn(serials, d.Serial, i, list, "serial")
			c.uniqueIn(mounts, d.Mount, i, list, "mount")
		}
	}
}

func (c *checker) uniqueIn(first map[string]int, value string, i int, list, setting string) {
	if value == "" {
		return
	}
	if other, ok := first[value]; ok {
		key := indexed(list, i) + "." + setting
		c.errorAt(key, "choose another", "%s is the %s of another disk of the same machine (%s)", value, setting, c.line(indexed(list, other)+"."+setting, key))
		return
	}
	first[value] = i
}

func (c *checker) ballooning(lab *Lab) {
	for _, m := range lab.Machines {
		if m.BalloonMiB > m.MemoryMiB {
			c.errorAt(machineKey(m, "balloon_mib"), "it is the least the machine keeps; choose at most its memory_mib",
				"%d is more than its memory_mib, %d", m.BalloonMiB, m.MemoryMiB)
		}
	}
}

// metal warns of settings that only a VM can have. Inherited ones are no mistake.
func (c *checker) metal(lab *Lab) {
	for _, m := range lab.Machines {
		if m.Hypervisor != HypervisorNone {
			continue
		}
		for _, setting := range []string{"vmid", "cores", "memory_mib", "balloon_mib", "disk_gib", "storage", "template_vmid", "vlan", "on_boot"} {
			key := machineKey(m, setting)
			if c.written(key) && c.sources.Position(key) != c.sources.Position("nodes.defaults."+setting) {
				c.warnAt(key, "leave it out", "has no effect on a machine without a hypervisor")
			}
		}
	}
}

// adopted warns of settings that are not followed on a VM k3lab did not make.
// Inherited ones are no mistake.
func (c *checker) adopted(lab *Lab) {
	for _, m := range lab.Machines {
		if !m.Adopted {
			continue
		}
		if m.Hypervisor == HypervisorNone {
			c.warnAt(machineKey(m, "adopted"), "leave it out", "has no effect on a machine without a hypervisor")
			continue
		}
		for _, setting := range []string{"mac", "disk_gib", "storage", "template_vmid", "vlan", "extra_disks"} {
			key := machineKey(m, setting)
			if c.written(key) && c.sources.Position(key) != c.sources.Position("nodes.defaults."+setting) {
				c.warnAt(key, "leave it out, and change it in Proxmox", "has no effect on an adopted VM: k3lab changes its cores, memory and on_boot only")
			}
		}
	}
}

// quorum checks the number of servers.
func (c *checker) quorum(lab *Lab) {
	servers := lab.Servers()
	at := "nodes.machines"
	switch n := len(servers); {
	case n == 0 && !c.roleless(lab):
		c.errorAt(at, "give one machine, or better three, role: server", "none of the enabled machines is a server")
	case n > 0 && n%2 == 0:
		c.warnAt(machineKey(servers[n-1], "role"), "have one server less, or one more",
			"%d servers: etcd needs a majority of them, %d, so they survive the loss of no more servers than %d would", n, n/2+1, n-1)
	case n > 7:
		c.warnAt(machineKey(servers[n-1], "role"), "make some of them agents", "%d servers: every write waits for a majority; etcd advises at most 7", n)
	}
}

// roleless reports whether a role could not be read: it may be the server's.
func (c *checker) roleless(lab *Lab) bool {
	if c.machinesUnread {
		return true
	}
	return slices.ContainsFunc(enabled(lab), func(m *Machine) bool { return m.Role == "" })
}

// schedulable warns of a cluster on which no pod of the user's could run.
func (c *checker) schedulable(lab *Lab) {
	nodes := lab.Nodes()
	for _, m := range nodes {
		if !slices.ContainsFunc(m.Taints, keepsPodsOff) {
			return
		}
	}
	if len(nodes) > 0 {
		c.warnAt(machineKey(nodes[0], "taints"), "leave one node without such a taint", "every node keeps ordinary pods off")
	}
}

func keepsPodsOff(taint string) bool {
	return strings.HasSuffix(taint, ":NoSchedule") || strings.HasSuffix(taint, ":NoExecute")
}

// memory adds up what the machines of a hypervisor want. With ballooning the
// sum may exceed what is there, as long as the least they keep does not.
func (c *checker) memory(lab *Lab) {
	for _, name := range lab.HypervisorNames() {
		have := lab.Proxmox.Hypervisors[name].MemoryMiB
		if have == 0 {
			continue
		}
		least, most := 0, 0
		var names []string
		for _, m := range lab.MachinesOn(name) {
			most += m.MemoryMiB
			kept := m.MemoryMiB
			if m.BalloonMiB > 0 {
				kept = min(kept, m.BalloonMiB)
			}
			least += kept
			names = append(names, m.Name)
		}
		key := "proxmox.hypervisors." + name + ".memory_mib"
		switch {
		case least > have:
			c.errorAt(key, "give them less, or move one to another hypervisor", "%s has %d MiB and its machines want %d: %s", name, have, least, strings.Join(names, ", "))
		case most > have:
			c.warnAt(key, "it works as long as they do not need it all at once", "%s has %d MiB, its machines up to %d, ballooned %d", name, have, most, least)
		}
	}
}

// placement checks that what is referred to exists.
func (c *checker) placement(lab *Lab) {
	names := slices.DeleteFunc(lab.HypervisorNames(), func(name string) bool {
		return name == HypervisorNone || !hypervisorName.MatchString(name) // reported
	})
	for _, m := range lab.Machines {
		if _, ok := lab.Proxmox.Hypervisors[m.Hypervisor]; ok || m.Hypervisor == "" || m.Hypervisor == HypervisorNone {
			continue
		}
		c.errorAt(machineKey(m, "hypervisor"), known(m.Hypervisor, append(names, HypervisorNone)), "there is no hypervisor %q in proxmox.yaml", m.Hypervisor)
	}
	var endpoints []string
	for _, e := range lab.Proxmox.Endpoints {
		endpoints = append(endpoints, e.Name)
	}
	for _, name := range lab.HypervisorNames() {
		h := lab.Proxmox.Hypervisors[name]
		if h.Endpoint != "" && !slices.Contains(endpoints, h.Endpoint) {
			c.errorAt("proxmox.hypervisors."+name+".endpoint", known(h.Endpoint, endpoints), "there is no endpoint %q", h.Endpoint)
		}
	}
}

// known lists what there is, the nearest first.
func known(word string, names []string) string {
	if len(names) == 0 {
		return "there are none"
	}
	hint := "known: " + strings.Join(names, ", ")
	if near := nearest(word, names); near != "" {
		hint = "did you mean " + near + "? " + hint
	}
	return hint
}

// spread checks how many servers one hypervisor takes with it when it fails.
func (c *checker) spread(lab *Lab) {
	servers := lab.Servers()
	on := map[string][]*Machine{}
	for _, m := range servers {
		if m.Hypervisor != HypervisorNone && m.Hypervisor != "" {
			on[m.Hypervisor] = append(on[m.Hypervisor], m)
		}
	}
	free := slices.DeleteFunc(lab.HypervisorNames(), func(name string) bool { return on[name] != nil })
	for _, name := range slices.Sorted(maps.Keys(on)) {
		for _, m := range on[name][1:] {
			c.shared(lab, m, on[name][0], free, len(on))
		}
	}
}

// shared judges a server that stands beside another one. free are the hypervisors
// without a server, used is the number of those with one.
func (c *checker) shared(lab *Lab, m, with *Machine, free []string, used int) {
	key := machineKey(m, "hypervisor")
	hint := "have no more servers than hypervisors, or allow it with servers_spread: preferred"
	if len(free) > 0 {
		hint = "no server is on " + strings.Join(free, ", ")
	}
	switch {
	case lab.ServersSpread == SpreadRequired:
		c.errorAt(key, hint, "%s stands on %s beside %s, and servers_spread (%s) requires one of its own for every server",
			m.Name, m.Hypervisor, with.Name, c.line("nodes.servers_spread", key))
	case used == 1 && len(free) > 0:
		c.warnAt(key, hint, "%s stands beside %s: all servers are lost with %s", m.Name, with.Name, m.Hypervisor)
	case len(lab.Proxmox.Hypervisors) >= len(lab.Servers()):
		c.warnAt(key, hint+"; servers_spread: required makes this an error", "%s stands beside %s: both are lost with %s", m.Name, with.Name, m.Hypervisor)
	}
}
