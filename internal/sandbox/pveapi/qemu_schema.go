package pveapi

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// indexed matches configuration keys that carry a number, with the highest
// number each may have.
func indexed(key string) (base string, n int, ok bool) {
	i := len(key)
	for i > 0 && key[i-1] >= '0' && key[i-1] <= '9' {
		i--
	}
	if i == 0 || i == len(key) || key[i] == '0' && i+1 < len(key) {
		return "", 0, false
	}
	n, err := strconv.Atoi(key[i:])
	if err != nil {
		return "", 0, false
	}
	highest := map[string]int{
		"ide": 3, "sata": 5, "scsi": 30, "virtio": 15, "efidisk": 0, "tpmstate": 0, "unused": 255,
		"net": 31, "ipconfig": 31, "serial": 3, "parallel": 2, "hostpci": 15, "usb": 13, "numa": 7,
		"virtiofs": 9, "audio": 0, "rng": 0, "smbios": 1,
	}
	top, known := highest[key[:i]]
	return key[:i], n, known && n <= top
}

// isDisk says whether the key holds a drive (a CD-ROM is one).
func isDisk(key string) bool {
	base, _, ok := indexed(key)
	return ok && slices.Contains([]string{"ide", "sata", "scsi", "virtio", "efidisk", "tpmstate"}, base)
}

func isNet(key string) bool {
	base, _, ok := indexed(key)
	return ok && base == "net"
}

// plainKeys are the options of a VM without a number, sorted.
func plainKeys() []string {
	return []string{
		"acpi", "affinity", "agent", "amd-sev", "arch", "args", "autostart", "balloon", "bios", "boot", "bootdisk",
		"cdrom", "cicustom", "cipassword", "citype", "ciupgrade", "ciuser", "cores", "cpu", "cpulimit", "cpuunits",
		"description", "freeze", "hookscript", "hotplug", "hugepages", "ivshmem", "keephugepages", "keyboard", "kvm",
		"localtime", "lock", "machine", "memory", "migrate_downtime", "migrate_speed", "name", "nameserver", "numa",
		"onboot", "ostype", "protection", "reboot", "scsihw", "searchdomain", "shares", "smp", "sockets",
		"spice_enhancements", "sshkeys", "startdate", "startup", "tablet", "tags", "tdf", "template", "vcpus", "vga",
		"vmgenid", "vmstatestorage", "watchdog",
	}
}

// knownKey says whether a VM has that option.
func knownKey(key string) bool {
	if _, _, ok := indexed(key); ok {
		return true
	}
	_, ok := slices.BinarySearch(plainKeys(), key)
	return ok
}

// integers are the options with numbers or booleans, which answers carry as
// JSON numbers. (memory is a property string since Proxmox VE 8, hence text.)
func integer(key string) bool {
	return slices.Contains([]string{
		"acpi", "autostart", "balloon", "ciupgrade", "cores", "cpuunits", "freeze", "keephugepages", "kvm", "localtime",
		"migrate_speed", "numa", "onboot", "protection", "reboot", "shares", "sockets", "tablet", "tdf", "template", "vcpus",
	}, key)
}

// hotplugged options take effect on a running VM; the others wait for the next
// start. (Disks, networks and cloud-init drives are hot-pluggable by default.)
func hotplugged(key string) bool {
	base, _, ok := indexed(key)
	if ok {
		return slices.Contains([]string{"scsi", "virtio", "sata", "ide", "net", "unused"}, base)
	}
	return slices.Contains([]string{
		"autostart", "boot", "bootdisk", "description", "hookscript", "lock", "name", "onboot", "protection", "shares",
		"startup", "tags", "template", "cpulimit", "cpuunits", "migrate_downtime", "migrate_speed", "digest", "meta",
	}, key)
}

// checkValues verifies options one by one, as the API's schema does.
func checkValues(p map[string]string) map[string]string {
	bad := map[string]string{}
	for _, k := range sortedKeys(p) {
		v := p[k]
		if msg := checkValue(k, v); msg != "" {
			bad[k] = msg
		}
	}
	return bad
}

func checkValue(key, value string) string {
	if !knownKey(key) {
		return "property is not defined in schema and the schema does not allow additional properties"
	}
	if integer(key) {
		switch strings.ToLower(value) { // booleans have more spellings
		case "on", "off", "yes", "no", "true", "false":
			return ""
		}
		if _, err := strconv.Atoi(value); err != nil {
			return "type check ('integer') failed - got '" + value + "'"
		}
	}
	limits := map[string][2]int{"cores": {1, 1024}, "sockets": {1, 4}, "vcpus": {1, 4096}, "balloon": {0, 1 << 30}}
	if l, ok := limits[key]; ok {
		if n, err := strconv.Atoi(value); err != nil || n < l[0] || n > l[1] {
			return "value must be between " + strconv.Itoa(l[0]) + " and " + strconv.Itoa(l[1])
		}
	}
	switch key {
	case "name":
		if !regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*$`).MatchString(value) {
			return "invalid format - value does not look like a valid DNS name"
		}
	case "memory":
		if n, err := strconv.Atoi(strings.TrimPrefix(value, "current=")); err != nil || n < 16 {
			return "invalid format - value must have a minimum value of 16"
		}
	case "tags":
		for _, t := range splitList(value) {
			if !regexp.MustCompile(`^[a-z0-9_][a-z0-9_\-+.]*$`).MatchString(strings.ToLower(t)) {
				return "invalid format - invalid characters in tag"
			}
		}
	}
	return ""
}

// canonical is the form in which an option's value is kept.
func canonical(key, value string) string {
	if integer(key) {
		switch strings.ToLower(value) {
		case "on", "yes", "true":
			return "1"
		case "off", "no", "false":
			return "0"
		}
	}
	switch key {
	case "tags":
		tags := splitList(strings.ToLower(value))
		slices.Sort(tags)
		return strings.Join(slices.Compact(tags), ";")
	case "cipassword":
		return "**********" // nobody reads it; the machines know keys only
	}
	return value
}
