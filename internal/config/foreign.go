package config

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// foreign is what a name used by other labs is called here.
type foreign struct {
	name    string                             // our key, or the path of one that stands elsewhere
	convert func(*node) (text string, ok bool) // the value as YAML; text "" keeps it as it is
	moved   bool                               // the setting has another place: nothing to rename
}

type renaming struct {
	foreign
	from []string
}

func rename(to string, convert func(*node) (string, bool), from ...string) renaming {
	return renaming{foreign{name: to, convert: convert}, from}
}

func elsewhere(to string, from ...string) renaming {
	return renaming{foreign{name: to, moved: true}, from}
}

func foreignNames(list ...renaming) map[string]foreign {
	m := map[string]foreign{}
	for _, r := range list {
		for _, name := range r.from {
			m[name] = r.foreign
		}
	}
	return m
}

// The conversions below turn the value of a foreign key into ours. They say not
// ok where its meaning is a guess.

func same(*node) (string, bool) { return "", true }

func toInt(n *node) (string, bool) {
	i, err := strconv.Atoi(n.text)
	if n.kind != kindInt && n.kind != kindText || err != nil {
		return "", false
	}
	return strconv.Itoa(i), true
}

var quantity = regexp.MustCompile(`^([0-9]{1,9})(?:\.([05]))? ?(?i:(k|m|g|t)(?:i?b)?)?$`)

// mebibytes reads a size as other tools write it: 8192, 8G, 8GiB, 512M, 1.5G.
// They mean powers of two whatever the unit is called. unit is empty for a bare
// number.
func mebibytes(n *node) (mib int, unit string, ok bool) {
	if n.kind != kindInt && n.kind != kindText && n.kind != kindFloat {
		return 0, "", false
	}
	m := quantity.FindStringSubmatch(strings.TrimSpace(n.text))
	if m == nil {
		return 0, "", false
	}
	whole, err := strconv.Atoi(m[1])
	if err != nil {
		return 0, "", false
	}
	half := m[2] == "5"
	unit = strings.ToLower(m[3])
	factor := map[string]int{"": 1, "m": 1, "g": 1024, "t": 1024 * 1024}[unit]
	if factor == 0 || half && factor == 1 {
		return 0, unit, false
	}
	mib = whole * factor
	if half {
		mib += factor / 2
	}
	return mib, unit, true
}

// leastMiB is where a bare number stops being GiB: no machine runs K3s in 255 MiB,
// and none at home has 256 GiB.
const leastMiB = 256

func toMiB(n *node) (string, bool) {
	mib, unit, ok := mebibytes(n)
	if unit == "" && mib > 0 && mib < leastMiB {
		mib *= 1024
	}
	return strconv.Itoa(mib), ok
}

func toGiB(n *node) (string, bool) {
	mib, unit, ok := mebibytes(n)
	if unit == "" {
		mib *= 1024
	}
	return strconv.Itoa(mib / 1024), ok && mib%1024 == 0
}

func toRole(n *node) (string, bool) {
	r, ok := roleOf(n.text)
	return string(r), ok
}

// roleOf understands every usual word for a role.
func roleOf(word string) (Role, bool) {
	switch strings.ToLower(strings.NewReplacer("-", "", "_", "", " ", "").Replace(word)) {
	case "server", "master", "controlplane", "controller", "control", "manager", "cp":
		return RoleServer, true
	case "agent", "worker", "compute":
		return RoleAgent, true
	case "none":
		return RoleNone, true
	default:
		return "", false
	}
}

func flagToRole(n *node) (string, bool) {
	if n.kind != kindBool {
		return "", false
	}
	if n.value() == true {
		return string(RoleServer), true
	}
	return string(RoleAgent), true
}

func toAddress(n *node) (string, bool) {
	if p, err := netip.ParsePrefix(n.text); err == nil {
		return p.Addr().String(), true
	}
	a, err := netip.ParseAddr(n.text)
	return a.String(), err == nil && n.kind == kindText
}

func toMAC(n *node) (string, bool) {
	mac, ok := macOf(n.text)
	return `"` + mac + `"`, ok && n.kind == kindText
}

var hexDigits = regexp.MustCompile(`^[0-9A-F]{12}$`)

// macOf reads a MAC address in any usual form and writes it in ours.
func macOf(text string) (string, bool) {
	digits := strings.ToUpper(strings.NewReplacer(":", "", "-", "", ".", "").Replace(text))
	if !hexDigits.MatchString(digits) {
		return "", false
	}
	parts := make([]string, 0, 6)
	for i := 0; i < 12; i += 2 {
		parts = append(parts, digits[i:i+2])
	}
	return strings.Join(parts, ":"), true
}

func toArch(n *node) (string, bool) {
	switch strings.ToLower(n.text) {
	case "amd64", "x86_64", "x86-64", "x64":
		return "amd64", true
	case "arm64", "aarch64", "armv8":
		return "arm64", true
	default:
		return "", false
	}
}

// toList puts a single value into a list.
func toList(n *node) (string, bool) {
	switch {
	case n.kind == kindList:
		return "", true
	case n.kind == kindText && n.plain:
		return "[" + n.text + "]", !strings.ContainsAny(n.text, "[]{},#\n")
	case n.kind == kindText:
		return "[" + strconv.Quote(n.text) + "]", true
	default:
		return "", false
	}
}
