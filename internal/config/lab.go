package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Servers returns the enabled servers in file order.
func (l *Lab) Servers() []*Machine { return l.byRole(RoleServer) }

// Agents returns the enabled agents in file order.
func (l *Lab) Agents() []*Machine { return l.byRole(RoleAgent) }

// Nodes returns the enabled servers, then the enabled agents.
func (l *Lab) Nodes() []*Machine { return append(l.Servers(), l.Agents()...) }

func (l *Lab) byRole(r Role) []*Machine {
	var out []*Machine
	for _, m := range l.Machines {
		if m.Enabled && m.Role == r {
			out = append(out, m)
		}
	}
	return out
}

// Machine returns the machine of that name, or nil.
func (l *Lab) Machine(name string) *Machine {
	for _, m := range l.Machines {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// VirtualMachines returns the enabled machines that a hypervisor of this lab
// carries, in file order, whatever their role.
func (l *Lab) VirtualMachines() []*Machine {
	var out []*Machine
	for _, m := range l.Machines {
		if m.Enabled && m.Hypervisor != HypervisorNone {
			out = append(out, m)
		}
	}
	return out
}

// MachinesOn returns the enabled machines of a hypervisor in file order.
func (l *Lab) MachinesOn(hypervisor string) []*Machine {
	var out []*Machine
	for _, m := range l.VirtualMachines() {
		if m.Hypervisor == hypervisor {
			out = append(out, m)
		}
	}
	return out
}

// HypervisorNames returns the names of the hypervisors, sorted.
func (l *Lab) HypervisorNames() []string {
	return slices.Sorted(maps.Keys(l.Proxmox.Hypervisors))
}

// Endpoint returns the endpoint of that name, and false when there is none.
func (l *Lab) Endpoint(name string) (Endpoint, bool) {
	for _, e := range l.Proxmox.Endpoints {
		if e.Name == name {
			return e, true
		}
	}
	return Endpoint{}, false
}

// ParseRange reads "a-b", "a/n" or a single address. It fails where the ends are
// in the wrong order or of different families.
func ParseRange(text string) (Range, error) {
	if first, last, ok := strings.Cut(text, "-"); ok {
		from, err := netip.ParseAddr(strings.TrimSpace(first))
		if err != nil {
			return Range{}, fmt.Errorf("%q is not an address", strings.TrimSpace(first))
		}
		to, err := netip.ParseAddr(strings.TrimSpace(last))
		if err != nil {
			return Range{}, fmt.Errorf("%q is not an address", strings.TrimSpace(last))
		}
		if from.Is4() != to.Is4() || from.Zone() != "" || to.Zone() != "" {
			return Range{}, fmt.Errorf("%q has ends that do not belong together", text)
		}
		if to.Less(from) {
			return Range{}, fmt.Errorf("%q ends before it begins", text)
		}
		return Range{From: from, To: to}, nil
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return rangeOf(p), nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return Range{}, fmt.Errorf("%q is not a range of addresses", text)
	}
	return Range{From: a, To: a}, nil
}

// rangeOf returns the first and last address of a network.
func rangeOf(p netip.Prefix) Range {
	p = p.Masked()
	last := p.Addr().AsSlice()
	for i := p.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	to, _ := netip.AddrFromSlice(last) // as long as an address is
	return Range{From: p.Addr(), To: to}
}

// String writes the range as ParseRange reads it: "a-b", or "a" for one address.
func (r Range) String() string {
	if r.From == r.To {
		return r.From.String()
	}
	return r.From.String() + "-" + r.To.String()
}

// MarshalText is String; the zero Range is empty text.
func (r Range) MarshalText() ([]byte, error) {
	if !r.From.IsValid() {
		return nil, nil
	}
	return []byte(r.String()), nil
}

// UnmarshalText is ParseRange.
func (r *Range) UnmarshalText(text []byte) (err error) {
	*r = Range{}
	if len(text) > 0 {
		*r, err = ParseRange(string(text))
	}
	return err
}

// Contains reports whether the address lies in the range.
func (r Range) Contains(a netip.Addr) bool {
	return r.From.IsValid() && a.IsValid() && r.From.Is4() == a.Is4() && r.From.Compare(a) <= 0 && a.Compare(r.To) <= 0
}

// Overlaps reports whether the ranges have an address in common.
func (r Range) Overlaps(o Range) bool {
	return r.Contains(o.From) || o.Contains(r.From)
}

// Compare orders ranges by their first, then their last address.
func (r Range) Compare(o Range) int {
	return cmp.Or(r.From.Compare(o.From), r.To.Compare(o.To))
}
