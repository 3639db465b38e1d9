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
	n.VIPProvider = VIPProvider(o.choice("vip_provider", string(VIPKeepalived), string(VIPKeepalived), string(VIPKubeVIP)))
	n.VIPImage = c.pinnedImage(o, "vip_image", kubeVIPImage)
	n.VRRPID = o.int("vrrp_id", 51, 1, 255)
	n.TLSSANs = c.hosts(o, "tls_sans")
	n.LoadBalancerPool = c.ranges(o, "load_balancer_pool")
	n.Reserved = c.ranges(o, "reserved")
	n.AdminNetworks = c.networks(o, "admin_networks")
}

// kubeVIPImage is what runs kube-vip unless the settings name another.
const kubeVIPImage = "ghcr.io/kube-vip/kube-vip:v1.2.3"

// image is the name of a container image with its registry, and what says which
// one of that name it is: a tag, a digest or both.
var image = regexp.MustCompile(`^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$`)

// pinnedImage reads the name of an image that is the same one tomorrow.
func (c *checker) pinnedImage(o object, name, fallback string) string {
	text, key, ok := o.scalar(name, kindText)
	if !ok {
		return fallback
	}
	hint := "write it as " + fallback
	m := image.FindStringSubmatch(text)
	switch {
	case m == nil:
		c.errorAt(key, hint, "%q is no name of an image with its registry", text)
	case (m[4] == "" || m[4] == ":latest") && m[5] == "":
		c.errorAt(key, hint, "%q does not say which version", text)
	default:
		return text
	}
	return fallback
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
