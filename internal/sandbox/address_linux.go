package sandbox

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/k3lab/k3lab/internal/fault"
)

// defaultRange is set aside for tests of networks; nothing on the internet has
// an address in it.
var defaultRange = netip.MustParsePrefix("198.18.0.0/15")

// chooseCIDR returns the network asked for, or a free one of the default range.
// used are the networks no sandbox may take.
func chooseCIDR(asked string, used []use) (netip.Prefix, error) {
	if asked != "" {
		p, err := netip.ParsePrefix(asked)
		if err != nil || !p.Addr().Is4() || p != p.Masked() || p.Bits() < 16 || p.Bits() > 28 {
			return p, fault.New(fault.Invalid, "network "+asked, "", "must be an IPv4 network between /16 and /28, such as 198.18.7.0/24")
		}
		if u, taken := overlap(p, used); taken {
			return p, fault.New(fault.Invalid, "network "+asked, "choose another --cidr, or none for a free one", "overlaps with %s, in use by %s", u.prefix, u.by)
		}
		return p, nil
	}
	first := binary.BigEndian.Uint32(defaultRange.Addr().AsSlice())
	for i := range uint32(512) {
		p := netip.PrefixFrom(addr4(first+i<<8), 24)
		if _, taken := overlap(p, used); !taken {
			return p, nil
		}
	}
	return netip.Prefix{}, fault.New(fault.Failed, "network "+defaultRange.String(), "give one with --cidr", "has no free /24 left")
}

// use is a network somebody uses.
type use struct {
	prefix netip.Prefix
	by     string
}

func overlap(p netip.Prefix, used []use) (use, bool) {
	for _, u := range used {
		if u.prefix.Overlaps(p) {
			return u, true
		}
	}
	return use{}, false
}

// usedNetworks lists what the computer has routes to or addresses in, and what
// other sandboxes own.
func usedNetworks(ctx context.Context, self place) ([]use, error) {
	var out []use
	routes, err := exec.CommandContext(ctx, "ip", "-json", "-4", "route", "show", "table", "all").Output()
	if err != nil {
		return nil, fault.New(fault.Failed, "ip route", "", "%w", err)
	}
	found, err := parseRoutes(routes)
	if err != nil {
		return nil, err
	}
	out = append(out, found...)
	names, err := List()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		p, err := placeOf(name)
		if err != nil || p == self {
			continue
		}
		if info, err := p.load(); err == nil && info != nil {
			if prefix, err := netip.ParsePrefix(info.CIDR); err == nil {
				out = append(out, use{prefix, "sandbox " + name})
			}
		}
	}
	return out, nil
}

// parseRoutes reads ip's JSON. Addresses of the computer are in it as routes
// of the table local. A default route uses nothing.
func parseRoutes(text []byte) ([]use, error) {
	var routes []struct{ Dst, Dev string }
	if err := json.Unmarshal(text, &routes); err != nil {
		return nil, fault.New(fault.Failed, "ip route", "", "%w", err)
	}
	var out []use
	for _, r := range routes {
		p, err := netip.ParsePrefix(r.Dst)
		if err != nil {
			a, err := netip.ParseAddr(r.Dst)
			if err != nil {
				continue // default
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p.Bits() > 0 {
			out = append(out, use{p, strings.TrimSuffix("a route of this computer on "+r.Dev, " on ")})
		}
	}
	return out, nil
}

// layOut fills in the addresses of a network: the first is the gateway, the
// last the computer, and what the lab may use lies between.
func (i *Info) layOut(p netip.Prefix) {
	base := binary.BigEndian.Uint32(p.Addr().AsSlice())
	size := uint32(1) << (32 - p.Bits())
	at := func(n uint32) string { return addr4(base + n).String() }
	i.CIDR, i.Gateway, i.Computer = p.String(), at(1), at(size-2)
	// A /24 has .10, .11 to .99 and .200 to .250; smaller ones in proportion.
	first, pool, last := uint32(10), uint32(200), uint32(250)
	if size < 256 {
		first, pool, last = 2, size-size/4, size-3
	}
	i.Free = Addresses{VIP: at(first), LoadBalancerPool: fmt.Sprintf("%s-%s", at(pool), at(last))}
	for n := first + 1; n < pool && n < first+90; n++ {
		i.Free.Machines = append(i.Free.Machines, at(n))
	}
}

func addr4(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}
