//go:build linux

package sandbox

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChooseCIDR(t *testing.T) {
	used := func(prefixes ...string) []use {
		var out []use
		for _, p := range prefixes {
			out = append(out, use{netip.MustParsePrefix(p), "sandbox other"})
		}
		return out
	}
	tests := map[string]struct {
		asked string
		used  []use
		want  string
	}{
		"the first":         {"", nil, "198.18.0.0/24 <nil>"},
		"the first free":    {"", used("198.18.0.0/24", "198.18.1.7/32"), "198.18.2.0/24 <nil>"},
		"behind a wide one": {"", used("198.18.0.0/16"), "198.19.0.0/24 <nil>"},
		"none": {"", used("198.18.0.0/15"),
			"invalid Prefix network 198.18.0.0/15: has no free /24 left (try: give one with --cidr)"},
		"asked": {"10.9.8.0/28", used("10.9.7.0/24"), "10.9.8.0/28 <nil>"},
		"asked, taken": {"10.9.8.0/24", used("10.0.0.0/8"),
			"10.9.8.0/24 network 10.9.8.0/24: overlaps with 10.0.0.0/8, in use by sandbox other (try: choose another --cidr, or none for a free one)"},
		"an address": {"10.9.8.7/24", nil,
			"10.9.8.7/24 network 10.9.8.7/24: must be an IPv4 network between /16 and /28, such as 198.18.7.0/24"},
		"IPv6": {"fd00::/64", nil,
			"fd00::/64 network fd00::/64: must be an IPv4 network between /16 and /28, such as 198.18.7.0/24"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := chooseCIDR(tt.asked, tt.used)
			wants(t, "network", fmt.Sprint(got, " ", err), tt.want)
		})
	}
}

func TestParseRoutes(t *testing.T) {
	const text = `[{"dst":"default","gateway":"192.0.2.1","dev":"eth0"},{"dst":"192.0.2.0/24","dev":"eth0"},
		{"type":"local","dst":"127.0.0.1","dev":"lo","table":"local"},{"type":"unreachable","dst":"198.51.100.0/24","dev":""}]`
	found, err := parseRoutes([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range found {
		got = append(got, u.prefix.String()+" "+u.by)
	}
	want := []string{"192.0.2.0/24 a route of this computer on eth0", "127.0.0.1/32 a route of this computer on lo", "198.51.100.0/24 a route of this computer"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestLayOut(t *testing.T) {
	tests := map[string]Info{
		"198.18.7.0/24": {CIDR: "198.18.7.0/24", Gateway: "198.18.7.1", Computer: "198.18.7.254",
			Free: Addresses{VIP: "198.18.7.10", LoadBalancerPool: "198.18.7.200-198.18.7.250"}},
		"10.0.0.16/28": {CIDR: "10.0.0.16/28", Gateway: "10.0.0.17", Computer: "10.0.0.30",
			Free: Addresses{VIP: "10.0.0.18", LoadBalancerPool: "10.0.0.28-10.0.0.29"}},
	}
	machines := map[string]string{"198.18.7.0/24": "89 from 198.18.7.11 to 198.18.7.99", "10.0.0.16/28": "9 from 10.0.0.19 to 10.0.0.27"}
	for cidr, want := range tests {
		t.Run(cidr, func(t *testing.T) {
			var got Info
			got.layOut(netip.MustParsePrefix(cidr))
			m := got.Free.Machines
			wants(t, "machines", fmt.Sprintf("%d from %s to %s", len(m), m[0], m[len(m)-1]), machines[cidr])
			got.Free.Machines = nil
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}
