package pveapi

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// spec translates a VM's configuration for the machine that is to run it.
func (vm *VM) spec() (Spec, error) {
	s := Spec{VMID: vm.VMID, Name: vm.name(), Hypervisor: vm.Node, Cores: vm.cpus(), MemoryMiB: vm.memoryMiB()}
	disks := vm.diskKeys()
	if len(disks) > 0 {
		boot := vm.bootDisk(disks)
		disks = append([]string{boot}, slices.DeleteFunc(disks, func(k string) bool { return k == boot })...)
	}
	for i, k := range disks {
		if base, _, _ := indexed(k); base == "efidisk" || base == "tpmstate" {
			continue
		}
		d, err := parseProps(vm.Config[k], "file")
		if err != nil {
			return s, failed("unable to parse drive options for '%s'", k)
		}
		s.Disks = append(s.Disks, Disk{Key: k, Volume: d["file"], Serial: d["serial"], SizeBytes: vm.diskBytes(k), Boot: i == 0})
	}
	cards := vm.cards()
	for _, k := range cards {
		_, p, err := parseNet(vm.Config[k])
		if err != nil {
			return s, failed("unable to parse network options for '%s'", k)
		}
		n := NIC{Key: k, MAC: strings.ToUpper(p["macaddr"]), Bridge: p["bridge"]}
		if t := p["tag"]; t != "" {
			if n.VLAN, err = strconv.Atoi(t); err != nil {
				return s, failed("unable to parse network options for '%s'", k)
			}
		}
		s.NICs = append(s.NICs, n)
	}
	var err error
	s.CloudInit, err = vm.cloudInit(cards)
	return s, err
}

// cards lists the VM's network cards in order.
func (vm *VM) cards() []string {
	var out []string
	for k := range vm.Config {
		if isNet(k) {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, compareKeys)
	return out
}

func (vm *VM) cloudInit(cards []string) (CloudInit, error) {
	c := CloudInit{User: vm.Config["ciuser"], SearchDomain: vm.Config["searchdomain"], DNSServers: splitList(vm.Config["nameserver"])}
	keys, err := url.PathUnescape(vm.Config["sshkeys"])
	if err != nil {
		return c, failed("unable to decode sshkeys: %v", err)
	}
	for _, line := range strings.Split(keys, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			c.SSHKeys = append(c.SSHKeys, line)
		}
	}
	for _, k := range cards {
		ip, err := parseProps(vm.Config["ipconfig"+strings.TrimPrefix(k, "net")], "")
		if err != nil {
			return c, failed("unable to parse ipconfig of '%s'", k)
		}
		c.Addresses = append(c.Addresses, ip["ip"])
		if c.Gateway == "" {
			c.Gateway = ip["gw"]
		}
	}
	return c, nil
}

// checkIPConfig verifies an ipconfigN value.
func checkIPConfig(value string) error {
	p, err := parseProps(value, "")
	if err != nil {
		return fmt.Errorf("invalid format - %w", err)
	}
	for _, k := range sortedKeys(p) {
		v := p[k]
		switch k {
		case "ip", "ip6":
			if v == "dhcp" || v == "manual" || k == "ip6" && v == "auto" {
				continue
			}
			if _, err := netip.ParsePrefix(v); err != nil {
				return fmt.Errorf("invalid format - %s: value does not look like a valid network configuration", k)
			}
		case "gw", "gw6":
			if net.ParseIP(v) == nil {
				return fmt.Errorf("invalid format - %s: value does not look like a valid IP address", k)
			}
		default:
			return fmt.Errorf("invalid format - %s: property is not defined in schema and the schema does not allow additional properties", k)
		}
	}
	if p["gw"] != "" && p["ip"] == "" {
		return fmt.Errorf("invalid format - gateway specified without specifying an IP address")
	}
	return nil
}
