package desired

import (
	"fmt"
	"slices"
	"strings"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
)

// sysctls are what kubelet, flannel and kube-proxy need. The vm and kernel ones
// are those kubelet wants exactly so: it sets them itself, or does not start when
// it is told to leave the kernel alone (protect-kernel-defaults).
var sysctls = []converger.Sysctl{
	{Key: "fs.inotify.max_user_instances", Value: "8192"},
	{Key: "fs.inotify.max_user_watches", Value: "524288"},
	{Key: "kernel.keys.root_maxbytes", Value: "25000000"},
	{Key: "kernel.keys.root_maxkeys", Value: "1000000"},
	{Key: "kernel.panic", Value: "10"},
	{Key: "kernel.panic_on_oops", Value: "1"},
	{Key: "net.bridge.bridge-nf-call-iptables", Value: "1"},
	{Key: "net.ipv4.ip_forward", Value: "1"},
	{Key: "vm.overcommit_memory", Value: "1"},
	{Key: "vm.panic_on_oom", Value: "0"},
}

var modules = []string{"br_netfilter", "overlay"}

const (
	zoneInfo     = "/usr/share/zoneinfo/"
	journaldUnit = "systemd-journald.service"
	journaldPath = "/etc/systemd/journald.conf.d/k3lab.conf"
)

func operatingSystem(lab *config.Lab, m *config.Machine) []converger.Resource {
	out := []converger.Resource{
		{Hostname: &converger.Hostname{Name: m.Name}},
		{Block: &converger.Block{Path: "/etc/hosts", Lines: hosts(lab), Mode: 0o644}},
		// From this cloud-init writes /etc/hosts at each boot, where it manages it.
		{Block: &converger.Block{Path: "/etc/cloud/templates/hosts.debian.tmpl", Lines: hosts(lab), Mode: 0o644, IfThere: true}},
		{Swap: &converger.Swap{Off: true}},
	}
	for _, name := range modules {
		out = append(out, converger.Resource{Module: &converger.Module{Name: name}})
	}
	for _, s := range sysctls {
		out = append(out, converger.Resource{Sysctl: &s})
	}
	out = append(out, upgrades(lab)...)
	for _, name := range lab.OS.Packages {
		out = append(out, packageNamed(name))
	}
	out = append(out, basePackages(lab, m)...)
	out = append(out,
		converger.Resource{Link: &converger.Link{Path: "/etc/localtime", Target: zoneInfo + lab.OS.Timezone, MustLead: true}},
		file("/etc/timezone", lab.OS.Timezone+"\n", 0o644),
	)
	out = append(out, clock(lab)...)
	out = append(out,
		file(journaldPath, header+fmt.Sprintf("[Journal]\nStorage=persistent\nSystemMaxUse=%dM\n", lab.OS.JournaldMaxMiB), 0o644),
		converger.Resource{Unit: &converger.Unit{Name: journaldUnit, AsIs: true, RestartOn: []string{"file " + journaldPath}}},
	)
	return tagged(TagOS, out...)
}

// hosts are the names of the lab, so that its machines find each other, and the
// API, also where no DNS server knows them.
func hosts(lab *config.Lab) []string {
	names := func(name string) string {
		if lab.Network.SearchDomain == "" || strings.Contains(name, ".") {
			return name
		}
		return name + " " + name + "." + lab.Network.SearchDomain
	}
	var lines []string
	if lab.Network.VIP.IsValid() && lab.Network.VIPName != "" {
		lines = append(lines, lab.Network.VIP.String()+"\t"+names(lab.Network.VIPName))
	}
	for _, m := range lab.Machines {
		if m.Enabled {
			lines = append(lines, m.IP.String()+"\t"+names(m.Name))
		}
	}
	return lines
}

// basePackages are what storage, hypervisor and time need of every node. iSCSI
// and the guest agent are of no use in a container: its kernel is not its own.
func basePackages(lab *config.Lab, m *config.Machine) []converger.Resource {
	out := []converger.Resource{packageNamed("nfs-common"), notInContainer(packageNamed("open-iscsi"))}
	if m.Hypervisor != "" && m.Hypervisor != config.HypervisorNone {
		out = append(out, notInContainer(packageNamed("qemu-guest-agent")))
	}
	if lab.OS.UnattendedUpgrades {
		out = append(out, packageNamed("unattended-upgrades"))
	}
	return append(out, packageNamed("tzdata"))
}

func packageNamed(name string) converger.Resource {
	return converger.Resource{Package: &converger.Package{Name: name}}
}

func notInContainer(r converger.Resource) converger.Resource {
	r.Unless = &converger.Unless{Container: true}
	return r
}

// timeDaemons are packages that keep the clock instead of systemd-timesyncd, and
// their units. Two would pull at one clock.
var timeDaemons = map[string][]string{
	"chrony":   {"chrony.service", "chronyd.service"},
	"ntp":      {"ntp.service", "ntpd.service"},
	"ntpsec":   {"ntpsec.service"},
	"openntpd": {"openntpd.service"},
}

const (
	timeUnit = "systemd-timesyncd.service"
	timePath = "/etc/systemd/timesyncd.conf.d/k3lab.conf"
)

// clock has systemd-timesyncd keep the time, unless another daemon does: one
// that runs, or one the settings want.
func clock(lab *config.Lab) []converger.Resource {
	look := converger.Resource{Clock: &converger.Clock{}}
	unless := &converger.Unless{Container: true}
	for name, units := range timeDaemons {
		if slices.Contains(lab.OS.Packages, name) {
			return []converger.Resource{look}
		}
		unless.UnitsUp = append(unless.UnitsUp, units...)
	}
	slices.Sort(unless.UnitsUp)
	conf := converger.Resource{Absent: &converger.Absent{Path: timePath}}
	if len(lab.Network.NTPServers) > 0 {
		conf = file(timePath, header+"[Time]\nNTP="+strings.Join(lab.Network.NTPServers, " ")+"\n", 0o644)
	}
	out := []converger.Resource{packageNamed("systemd-timesyncd"), conf, {Unit: &converger.Unit{
		Name: timeUnit, Enabled: true, Running: true, RestartOn: []string{conf.ID()},
	}}}
	for i := range out {
		out[i].Unless = unless
	}
	return append(out, look)
}
