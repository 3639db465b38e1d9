package infra

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"
)

// difference is one attribute that changes.
type difference struct {
	path          string // cpu[0].cores
	before, after string
}

// settingNames maps the attributes of a machine to what they are called in the
// settings files.
var settingNames = map[string]string{
	"cpu[0].cores":                  "cores",
	"memory[0].dedicated":           "memory_mib",
	"memory[0].floating":            "balloon_mib",
	"disk[0].size":                  "disk_gib",
	"disk[0].datastore_id":          "storage",
	"node_name":                     "hypervisor",
	"vm_id":                         "vmid",
	"network_device[0].mac_address": "mac",
	"network_device[0].vlan_id":     "vlan",
	"network_device[0].bridge":      "bridge",
	"initialization[0].ip_config[0].ipv4[0].address": "ip",
	"initialization[0].ip_config[0].ipv4[0].gateway": "gateway",
	"initialization[0].dns[0].domain":                "search_domain",
	"started":                                        "running",
	"pool_id":                                        "pool",
}

var (
	extraDisk  = regexp.MustCompile(`^disk\[(\d+)\]\.(.+)$`)
	dnsServers = regexp.MustCompile(`^initialization\[0\]\.dns\[0\]\.servers`)
)

// name is what the attribute is called in the settings, or its path.
func (d difference) name(s subject) string {
	if !s.machine {
		return d.path
	}
	if name, ok := settingNames[d.path]; ok {
		return name
	}
	if m := extraDisk.FindStringSubmatch(d.path); m != nil && m[1] != "0" {
		i, err := strconv.Atoi(m[1])
		if err == nil {
			return fmt.Sprintf("extra_disks[%d].%s", i-1, strings.Replace(m[2], "size", "size_gib", 1))
		}
	}
	return dnsServers.ReplaceAllString(d.path, "dns_servers")
}

// onlyStarts reports whether a machine is powered off and otherwise as desired.
func onlyStarts(ds []difference) bool {
	return len(ds) == 1 && ds[0] == difference{"started", "false", "true"}
}

// needsRestart reports whether a running machine keeps its old value until it
// restarts.
func needsRestart(ds []difference) bool {
	return slices.ContainsFunc(ds, func(d difference) bool {
		for _, prefix := range []string{"cpu", "memory", "initialization", "scsi_hardware", "serial_device", "operating_system"} {
			if strings.HasPrefix(d.path, prefix) {
				return true
			}
		}
		return false
	})
}

// compare lists the attributes that differ, by path. What is only known after
// the change is left out. Disks count by their interface: the provider keeps
// them in no order.
func compare(c *tfjson.Change) []difference {
	before, secretBefore, _ := byInterface(c.Before, c.BeforeSensitive, nil)
	after, secretAfter, unknown := byInterface(c.After, c.AfterSensitive, c.AfterUnknown)
	var out []difference
	walk("", before, after, unknown, secretBefore, secretAfter, &out)
	return slices.DeleteFunc(out, func(d difference) bool { return chosenByProxmox.MatchString(d.path) })
}

// chosenByProxmox matches what a disk is stored as.
var chosenByProxmox = regexp.MustCompile(`^disk\[\d+\]\.(path_in_datastore|file_format)$`)

// byInterface returns an object with its disks sorted by interface, and what is
// secret and unknown in it sorted alike.
func byInterface(values, secret, unknown any) (any, any, any) {
	disks := list(at(values, "disk"))
	order := make([]int, len(disks))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return strings.Compare(fmt.Sprint(at(disks[a], "interface")), fmt.Sprint(at(disks[b], "interface")))
	})
	sorted := func(v any) any {
		m, ok := v.(map[string]any)
		if !ok || len(list(m["disk"])) == 0 {
			return v
		}
		l := make([]any, len(order))
		for i, from := range order {
			l[i] = item(list(m["disk"]), from)
		}
		out := maps.Clone(m)
		out["disk"] = l
		return out
	}
	return sorted(values), sorted(secret), sorted(unknown)
}

func walk(path string, before, after, unknown, secretBefore, secretAfter any, out *[]difference) {
	if unknown == true {
		return
	}
	hidden := secretBefore == true || secretAfter == true
	b, bIsMap := before.(map[string]any)
	a, aIsMap := after.(map[string]any)
	if (bIsMap || aIsMap) && !hidden {
		for _, key := range keys(b, a) {
			next := key
			if path != "" {
				next = path + "." + key
			}
			walk(next, b[key], a[key], at(unknown, key), at(secretBefore, key), at(secretAfter, key), out)
		}
		return
	}
	bl, bIsList := before.([]any)
	al, aIsList := after.([]any)
	if (bIsList || aIsList) && !hidden {
		for i := range max(len(bl), len(al)) {
			walk(fmt.Sprintf("%s[%d]", path, i), item(bl, i), item(al, i), item(list(unknown), i),
				item(list(secretBefore), i), item(list(secretAfter), i), out)
		}
		return
	}
	d := difference{path, text(before), text(after)}
	if d.before == d.after {
		return
	}
	if hidden {
		d.before, d.after = "***", "*** (changed)"
	}
	*out = append(*out, d)
}

func keys(maps2 ...map[string]any) []string {
	all := map[string]bool{}
	for _, m := range maps2 {
		for key := range m {
			all[key] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

func at(v any, key string) any {
	m, _ := v.(map[string]any)
	return m[key]
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func item(l []any, i int) any {
	if i < len(l) {
		return l[i]
	}
	return nil
}

// text is a value on one line; null and empty look the same, because providers
// use either for what is not set.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return `""`
	case string:
		if v == "" || strings.ContainsAny(v, " \n\t\"") {
			return strconv.Quote(v)
		}
		return v
	default:
		data, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		return string(data)
	}
}

// summary describes a new or removed object in one line.
func summary(s subject, values any) string {
	v, _ := values.(map[string]any)
	if v == nil {
		return ""
	}
	switch {
	case s.machine:
		sorted, _, _ := byInterface(v, nil, nil)
		return fmt.Sprintf("vm %s on %s, %s cores, %s MiB, %s GiB", text(v["vm_id"]), text(v["node_name"]),
			text(field(v, "cpu", "cores")), text(field(v, "memory", "dedicated")), text(field(sorted, "disk", "size")))
	case s.resource == "template":
		return fmt.Sprintf("vm %s", text(v["vm_id"]))
	case s.resource == "image":
		return text(v["file_name"])
	case s.resource == "pool":
		return text(v["pool_id"])
	}
	return ""
}

// field is an attribute of the first block of a kind.
func field(values any, block, name string) any {
	return at(item(list(at(values, block)), 0), name)
}
