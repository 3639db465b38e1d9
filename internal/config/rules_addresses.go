package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

const (
	cidrKey    = "network.cidr"
	gatewayKey = "network.gateway"
	vipKey     = "network.vip"
	poolKey    = "network.load_balancer_pool"
	reserveKey = "network.reserved"
)

// holder is something that has an address.
type holder struct {
	what string
	key  string // of Sources
	addr netip.Addr
}

func machineAddresses(lab *Lab) []holder {
	var out []holder
	for _, m := range enabled(lab) {
		if m.IP.IsValid() {
			out = append(out, holder{m.Name, machineKey(m, "ip"), m.IP})
		}
	}
	return out
}

// hypervisorAddresses are those of the endpoints that are given by address.
func hypervisorAddresses(lab *Lab) []holder {
	var out []holder
	for _, e := range lab.Proxmox.Endpoints {
		u, err := url.Parse(e.URL)
		if err != nil {
			continue
		}
		if a, err := netip.ParseAddr(u.Hostname()); err == nil {
			out = append(out, holder{"the API of endpoint " + e.Name, "proxmox.endpoints." + e.Name + ".url", a})
		}
	}
	return out
}

// subnet checks that what is on the machines' network has an address of it.
func (c *checker) subnet(lab *Lab) {
	n := lab.Network
	if len(lab.VirtualMachines()) > 0 && !n.Gateway.IsValid() && !c.written(gatewayKey) {
		c.errorf(c.sources.span(stem(networkFile)), "add it: the address of the router", "gateway is missing")
	}
	if !n.CIDR.IsValid() {
		return
	}
	for _, m := range enabled(lab) {
		key := machineKey(m, "ip")
		switch {
		case !m.IP.IsValid() || c.usable(m.IP, n.CIDR, key):
		case m.Hypervisor != HypervisorNone && !m.Adopted:
			c.errorAt(key, "choose one in it, or correct cidr", "%s is outside the machines' network %s (%s)", m.IP, n.CIDR, c.line(cidrKey, key))
		case m.Role == RoleServer && n.VIP.IsValid():
			c.errorAt(key, "the VIP moves between servers of one network only", "%s is outside the machines' network %s (%s)", m.IP, n.CIDR, c.line(cidrKey, key))
		default:
			c.warnAt(key, "it must be routed there", "%s is outside the machines' network %s (%s)", m.IP, n.CIDR, c.line(cidrKey, key))
		}
	}
	for _, h := range []holder{{"", gatewayKey, n.Gateway}, {"", vipKey, n.VIP}} {
		if h.addr.IsValid() && !c.usable(h.addr, n.CIDR, h.key) {
			c.errorAt(h.key, "choose one in it, or correct cidr", "%s is outside the machines' network %s (%s)", h.addr, n.CIDR, c.line(cidrKey, h.key))
		}
	}
}

// usable reports whether the address is in the network. The network's own
// address and its broadcast address are reported here.
func (c *checker) usable(a netip.Addr, network netip.Prefix, key string) bool {
	if !network.Contains(a) {
		return false
	}
	if r := rangeOf(network); network.Bits() < 31 && (a == r.From || a == r.To) {
		c.errorAt(key, "choose one in between", "%s is the first or last address of %s, which no machine can have", a, network)
	}
	return true
}

// uniqueAddresses checks machines against each other, the gateway and what is
// reserved. A machine that is no node may be the gateway.
func (c *checker) uniqueAddresses(lab *Lab) {
	first := map[netip.Addr]holder{}
	for _, h := range machineAddresses(lab) {
		if other, ok := first[h.addr]; ok {
			c.errorAt(h.key, "give every machine an address of its own", "%s is the address of %s already (%s)", h.addr, other.what, c.line(other.key, h.key))
			continue
		}
		first[h.addr] = h
		if h.addr == lab.Network.Gateway && lab.Machine(h.what).Role != RoleNone {
			c.errorAt(h.key, "choose another", "%s is the gateway (%s)", h.addr, c.line(gatewayKey, h.key))
		}
		for i, r := range lab.Network.Reserved {
			if r.Contains(h.addr) {
				c.errorAt(h.key, "choose another", "%s is reserved (%s)", h.addr, c.line(indexed(reserveKey, i), h.key))
			}
		}
	}
}

// virtualAddress checks that nothing else has the VIP, nor a hypervisor's address.
func (c *checker) virtualAddress(lab *Lab) {
	vip := lab.Network.VIP
	machines, hypervisors := machineAddresses(lab), hypervisorAddresses(lab)
	for _, h := range hypervisors {
		for _, m := range machines {
			if m.addr == h.addr {
				c.errorAt(m.key, "choose another", "%s is %s (%s)", m.addr, h.what, c.line(h.key, m.key))
			}
		}
	}
	if lab.Network.VIPProvider == VIPKubeVIP && !vip.IsValid() && !c.written(vipKey) {
		c.errorAt("network.vip_provider", "add vip, or take vip_provider out", "kube-vip is to keep a VIP, and there is no vip")
	}
	if lab.Network.VIPName != "" && !vip.IsValid() && !c.written(vipKey) {
		c.errorAt("network.vip_name", "add vip, or put the name into tls_sans", "a name for the VIP, and no vip")
	}
	if !vip.IsValid() {
		return
	}
	others := append(append(machines, hypervisors...), holder{"the gateway", gatewayKey, lab.Network.Gateway})
	for _, h := range others {
		if h.addr == vip {
			c.errorAt(vipKey, "choose one that nothing has: it moves between the servers", "%s is the address of %s already (%s)", vip, h.what, c.line(h.key, vipKey))
		}
	}
	for i, r := range lab.Network.Reserved {
		if r.Contains(vip) {
			c.errorAt(vipKey, "choose another", "%s is reserved (%s)", vip, c.line(indexed(reserveKey, i), vipKey))
		}
	}
}

// addressRanges checks the load-balancer pool: Services get its addresses, so
// nothing else may have one.
func (c *checker) addressRanges(lab *Lab) {
	n := lab.Network
	holders := append(machineAddresses(lab), hypervisorAddresses(lab)...)
	holders = append(holders, holder{"the gateway", gatewayKey, n.Gateway}, holder{"the VIP", vipKey, n.VIP})
	for i, pool := range n.LoadBalancerPool {
		key := indexed(poolKey, i)
		var inside []string
		for _, h := range holders {
			if pool.Contains(h.addr) {
				inside = append(inside, fmt.Sprintf("%s %s (%s)", h.what, h.addr, c.line(h.key, key)))
			}
		}
		if inside != nil {
			c.errorAt(key, "choose a range in which nothing else has an address", "%s contains %s", pool, strings.Join(inside, ", "))
		}
		for j, other := range n.LoadBalancerPool[:i] {
			if pool.Overlaps(other) {
				c.errorAt(key, "join them, or keep them apart", "%s overlaps %s (%s)", pool, other, c.line(indexed(poolKey, j), key))
			}
		}
		for j, r := range n.Reserved {
			if pool.Overlaps(r) {
				c.errorAt(key, "keep them apart", "%s overlaps the reserved %s (%s)", pool, r, c.line(indexed(reserveKey, j), key))
			}
		}
		c.poolInSubnet(pool, n.CIDR, key)
	}
}

func (c *checker) poolInSubnet(pool Range, network netip.Prefix, key string) {
	if !pool.From.IsValid() || !network.IsValid() || !pool.From.Is4() {
		return
	}
	all := rangeOf(network)
	switch {
	case !network.Contains(pool.From) || !network.Contains(pool.To):
		c.warnAt(key, "choose one in it, or route it to the nodes (BGP)", "%s is not within the machines' network %s (%s)", pool, network, c.line(cidrKey, key))
	case pool.Contains(all.From) || pool.Contains(all.To):
		c.warnAt(key, "leave the first and last address of the network out", "%s contains an address of %s that no Service can use", pool, network)
	}
}

// disjointNetworks checks machines, pods and Services against each other.
func (c *checker) disjointNetworks(lab *Lab) {
	networks := []struct {
		what, key string
		prefix    netip.Prefix
	}{
		{"the machines' network", cidrKey, lab.Network.CIDR},
		{"the pods' network", "all.k3s.pod_cidr", lab.K3s.PodCIDR},
		{"the Services' network", "all.k3s.service_cidr", lab.K3s.ServiceCIDR},
	}
	for i, n := range networks {
		for _, other := range networks[:i] {
			if !n.prefix.IsValid() || !other.prefix.IsValid() || !n.prefix.Overlaps(other.prefix) {
				continue
			}
			at, there, key := n.prefix, other, n.key
			if !c.written(key) { // a default: what was chosen is to blame
				c.errorAt(other.key, "choose another, or set "+label(key), "%s overlaps %s, %s by default", other.prefix, n.what, at)
				continue
			}
			where := c.line(there.key, key)
			if !c.written(there.key) {
				where = "the default"
			}
			c.errorAt(key, "choose one of another private range, such as 10.42.0.0/16", "%s overlaps %s %s (%s)", at, there.what, there.prefix, where)
		}
	}
}

// written reports whether the setting stands in a file, be it null.
func (c *checker) written(key string) bool {
	_, ok := c.sources.spans[key]
	return ok
}

// podNetworkSize checks that every node gets its /24.
func (c *checker) podNetworkSize(lab *Lab) {
	p := lab.K3s.PodCIDR
	if !p.IsValid() {
		return
	}
	room := 0
	if p.Bits() <= 24 {
		room = 1 << (24 - p.Bits())
	}
	if nodes := len(lab.Nodes()); nodes > room {
		c.errorAt("all.k3s.pod_cidr", "choose a larger network, such as 10.42.0.0/16; it cannot be changed later",
			"%s has room for %s, each taking a /24, and there are %d", p, count(room, "node"), nodes)
	}
}

// searchDomain warns of what has cost many an evening.
func (c *checker) searchDomain(lab *Lab) {
	d := lab.Network.SearchDomain
	if d == "" {
		return
	}
	c.warnAt("network.search_domain", "leave it out, or make sure *."+d+" has no wildcard record",
		"pods try every name with fewer than five dots (ndots:5) as NAME.%s first: a wildcard record there answers for the whole internet", d)
}
