package config

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Defaults of a machine. Terraform's templates have the same ones.
const (
	defaultCores     = 2
	defaultMemoryMiB = 4096
	defaultDiskGiB   = 32
)

func (c *checker) readNodes(lab *Lab, root *node) {
	if root == nil {
		return
	}
	file := object{c, stem(nodesFile), root}
	lab.ServersSpread = Spread(file.choice("servers_spread", string(SpreadPreferred), string(SpreadPreferred), string(SpreadRequired)))
	defaults := file.object("defaults")
	c.machine(defaults, "") // a wrong default is wrong even where every machine has its own
	file.require("machines")
	machines, _, ok := file.get("machines")
	c.machinesUnread = !ok || machines.kind != kindMap
	for _, e := range file.entries("machines") {
		c.machineName(e)
		own := c.objectOf(e)
		m := &Machine{Name: e.name, Enabled: true}
		lab.Machines = append(lab.Machines, m)
		if own.node == nil {
			continue
		}
		o := object{c, e.key, inherited(own.node, defaults.node)}
		*m = *c.machine(o, e.name)
		needed := []string{"role", "hypervisor", "ip", "vmid"}
		if m.Hypervisor == HypervisorNone {
			needed = needed[:3]
		}
		o.require(needed...)
	}
}

// inherited returns the machine's settings with the defaults put in where it has
// none of its own. There may be no defaults.
func inherited(own, defaults *node) *node {
	merged := &node{kind: kindMap, at: own.at}
	for _, e := range own.entries {
		if e.value.kind != kindNull || e.value.refused {
			merged.entries = append(merged.entries, e)
		}
	}
	if defaults != nil {
		for _, e := range defaults.entries {
			if merged.get(e.key.text) == nil {
				merged.entries = append(merged.entries, e)
			}
		}
	}
	return merged
}

var label1123 = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// inventoryGroups are the groups of hosts.ini; a machine of that name would be
// taken for the group.
var inventoryGroups = []string{"server", "agent", "master", "worker", "none", "k3s_cluster", "all", "ungrouped", "localhost"}

func (c *checker) machineName(e element) {
	switch {
	case !label1123.MatchString(e.name):
		hint := "use a to z, 0 to 9 and -, at most 63 characters, beginning and ending with a letter or digit"
		if near := hostName(e.name); near != "" {
			hint = "write " + near + ": " + hint
		}
		c.errorAt(e.key, hint, "%q is not a host name (RFC 1123)", e.name)
	case slices.Contains(inventoryGroups, e.name):
		c.errorAt(e.key, "call it "+e.name+"-1", "a machine cannot be called like a group of the Ansible inventory")
	}
}

// hostName makes a host name of a name that is none, or returns "".
func hostName(name string) string {
	s := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
	s = strings.Trim(s, "-")
	if !label1123.MatchString(s) {
		return ""
	}
	return s
}

// Bounds that only catch a wrong unit or a slip of the finger.
const (
	leastVMID, mostVMID = 100, 999_999_999
	mostVLAN            = 4094
	mostCores           = 1024
	mostMemoryMiB       = 64 << 20
	leastDiskGiB        = 4 // the template's disk
	mostDiskGiB         = 1 << 20
	mostExtraDisks      = 30 // scsi1 to scsi30
	mostDiskSerial      = 20 // characters QEMU passes on
	leastNodeMemoryMiB  = 512
)

// machine reads one machine. An empty name reads the defaults block, which holds
// any part of one.
func (c *checker) machine(o object, name string) *Machine {
	m := &Machine{
		Name:         name,
		Role:         c.role(o),
		Enabled:      o.bool("enabled", true),
		Hypervisor:   o.text("hypervisor", ""),
		VMID:         o.int("vmid", 0, leastVMID, mostVMID),
		IP:           o.address("ip"),
		MAC:          c.mac(o),
		Cores:        o.int("cores", defaultCores, 1, mostCores),
		MemoryMiB:    o.size("memory_mib", defaultMemoryMiB, leastNodeMemoryMiB, mostMemoryMiB),
		BalloonMiB:   o.size("balloon_mib", 0, 0, mostMemoryMiB),
		DiskGiB:      o.size("disk_gib", defaultDiskGiB, leastDiskGiB, mostDiskGiB),
		Storage:      o.text("storage", ""),
		TemplateVMID: o.int("template_vmid", 0, leastVMID, mostVMID),
		VLAN:         o.int("vlan", 0, 1, mostVLAN),
		Arch:         o.choice("arch", "amd64", "amd64", "arm64"),
		OnBoot:       o.bool("on_boot", true),
		Adopted:      o.bool("adopted", false),
	}
	for _, e := range o.list("extra_disks") {
		m.ExtraDisks = append(m.ExtraDisks, c.disk(c.objectOf(e)))
	}
	m.Labels = c.labels(o)
	for _, e := range o.texts("taints") {
		if c.taint(e) {
			m.Taints = append(m.Taints, e.node.text)
		}
	}
	return m
}

// size is int for MiB and GiB: a number out of range is most likely of the other
// unit.
func (o object) size(name string, fallback, least, most int) int {
	n, key, ok := o.get(name)
	if !ok || !o.expect(n, key, kindInt) {
		return fallback
	}
	i, ok := n.value().(int)
	unit := "GiB"
	if strings.HasSuffix(name, "_mib") {
		unit = "MiB"
	}
	if ok && i >= least && i <= most {
		return i
	}
	hint := fmt.Sprintf("it counts %s, %d to %d", unit, least, most)
	if unit == "MiB" && i > 0 && i < leastMiB {
		hint += fmt.Sprintf("; for %d GiB write %d", i, i*1024)
	}
	o.errorAt(key, hint, "%s is out of range", n.text)
	return fallback
}

func (c *checker) role(o object) Role {
	text, key, ok := o.scalar("role", kindText)
	if !ok {
		return ""
	}
	switch text {
	case string(RoleServer), "master":
		return RoleServer
	case string(RoleAgent), "worker":
		return RoleAgent
	case string(RoleNone):
		return RoleNone
	}
	hint := "valid: server, agent, none (master and worker are understood)"
	if r, ok := roleOf(text); ok {
		hint = fmt.Sprintf("write %s; %s", r, hint)
	}
	c.errorAt(key, hint, "%q is not a role", text)
	return ""
}

func (c *checker) mac(o object) string {
	text, key, ok := o.scalar("mac", kindText)
	if !ok {
		return ""
	}
	mac, ok := macOf(text)
	switch {
	case !ok:
		c.errorAt(key, "write six pairs of hex digits: BC:24:11:00:00:01", "%q is not a MAC address", text)
		return ""
	case !strings.EqualFold(mac, text):
		c.errorAt(key, `write "`+mac+`"`, "%q has not the form Proxmox VE takes", text)
		return ""
	case strings.ContainsAny(mac[1:2], "13579BDF"):
		c.errorAt(key, "the first pair must be even: BC:24:11:… is Proxmox VE's own", "%s is a multicast address", mac)
		return ""
	}
	return mac
}

var diskSerial = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

func (c *checker) disk(o object) Disk {
	o.require("size_gib")
	d := Disk{
		SizeGiB:    o.size("size_gib", 0, 1, mostDiskGiB),
		Storage:    o.text("storage", ""),
		Serial:     o.text("serial", ""),
		FileSystem: o.choice("file_system", "", "ext4", "xfs"),
		Mount:      o.text("mount", ""),
	}
	if d.Serial != "" && (len(d.Serial) > mostDiskSerial || !diskSerial.MatchString(d.Serial)) {
		c.errorAt(o.key+".serial", fmt.Sprintf("use letters, digits, - and _, at most %d", mostDiskSerial), "%q cannot be a disk's serial", d.Serial)
	}
	if d.Mount == "" {
		return d
	}
	if !path.IsAbs(d.Mount) || path.Clean(d.Mount) != d.Mount || d.Mount == "/" {
		c.errorAt(o.key+".mount", "write an absolute path such as /srv/data", "%q is not a directory a disk can be mounted at", d.Mount)
	}
	if _, _, ok := o.get("file_system"); !ok {
		c.errorAt(o.key+".mount", "add file_system: ext4", "a disk without file_system cannot be mounted")
	}
	if d.Serial == "" {
		c.errorAt(o.key+".mount", "add serial: DATA01", "a disk is found by its serial, and this one has none")
	}
	return d
}
