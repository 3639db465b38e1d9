package config

import (
	"net/netip"
	"regexp"
	"strings"
)

func (c *checker) readNetwork(lab *Lab, root *node) {
	if root == nil {
		return
	}
	o := object{c, stem(networkFile), root}
	o.require("cidr")
	n := &lab.Network
	n.Bridge = o.text("bridge", "vmbr0")
	n.VLAN = o.int("vlan", 0, 1, mostVLAN)
	n.CIDR = o.network("cidr", "")
	n.Gateway = o.address("gateway")
	for _, e := range o.texts("dns_servers") {
		if a, err := netip.ParseAddr(e.node.text); err == nil {
			n.DNSServers = append(n.DNSServers, a)
		} else {
			c.errorAt(e.key, "write an address such as 1.1.1.1", "%q is not an address", e.node.text)
		}
	}
	n.SearchDomain = c.domain(o, "search_domain")
	n.NTPServers = c.hosts(o, "ntp_servers")
	n.VIP = o.address("vip")
	n.VIPName = c.domain(o, "vip_name")
	n.VRRPID = o.int("vrrp_id", 51, 1, 255)
	n.TLSSANs = c.hosts(o, "tls_sans")
	n.LoadBalancerPool = c.ranges(o, "load_balancer_pool")
	n.Reserved = c.ranges(o, "reserved")
	n.AdminNetworks = c.networks(o, "admin_networks")
}

// ranges reads a list of ranges. An unreadable one keeps its place, so that the
// indices of the others hold.
func (c *checker) ranges(o object, name string) []Range {
	var out []Range
	for _, e := range o.list(name) {
		var r Range
		if c.expect(e.node, e.key, kindText) {
			var err error
			if r, err = ParseRange(e.node.text); err != nil {
				c.errorAt(e.key, "write 192.168.10.200-192.168.10.220, or a network", "%v", err)
			}
		}
		out = append(out, r)
	}
	return out
}

var domainName = regexp.MustCompile(`^([a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?\.)*[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$`)

func isDomain(s string) bool {
	return len(s) <= 253 && domainName.MatchString(s)
}

func (c *checker) domain(o object, name string) string {
	text, key, ok := o.scalar(name, kindText)
	if !ok {
		return ""
	}
	if !isDomain(text) {
		hint := "write a name such as home.arpa"
		if near := strings.Trim(text, ". "); isDomain(near) {
			hint = "write " + near
		}
		c.errorAt(key, hint, "%q is not a DNS name", text)
		return ""
	}
	return text
}

// hosts reads a list of DNS names and addresses.
func (c *checker) hosts(o object, name string) []string {
	var out []string
	for _, e := range o.texts(name) {
		if _, err := netip.ParseAddr(e.node.text); err != nil && !isDomain(e.node.text) {
			c.errorAt(e.key, "write one or the other", "%q is neither a DNS name nor an address", e.node.text)
			continue
		}
		out = append(out, e.node.text)
	}
	return out
}
