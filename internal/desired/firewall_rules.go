package desired

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/k3lab/k3lab/internal/config"
)

// privateNetworks are those a home network is likely to be in. They may log in
// where the settings name no admin networks.
var privateNetworks = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("fc00::/7"),
}

// ruleset writes the table of one machine.
type ruleset struct {
	lab    *config.Lab
	m      *config.Machine
	server bool
	text   strings.Builder
}

func newRuleset(lab *config.Lab, m *config.Machine) *ruleset {
	return &ruleset{lab: lab, m: m, server: m.Role == config.RoleServer}
}

func (r *ruleset) line(format string, args ...any) { fmt.Fprintf(&r.text, format+"\n", args...) }

// rule writes one rule with what it is for.
func (r *ruleset) rule(what, format string, args ...any) {
	r.line("\t\t%s comment %q", fmt.Sprintf(format, args...), what)
}

// String returns the file for nft: one transaction that replaces our table only.
func (r *ruleset) String() string {
	r.text.Reset()
	r.line("#!/usr/sbin/nft -f\n%s", strings.TrimSpace(header))
	r.line("table inet %[1]s\ndelete table inet %[1]s\ntable inet %[1]s {", firewallTable)
	r.line("\tcounter dropped_input { }\n\tcounter dropped_forward { }")
	admins := r.admins()
	r.set("nodes", "ipv4_addr", addresses(r.lab.Nodes()))
	r.set("servers", "ipv4_addr", addresses(r.lab.Servers()))
	r.set("pods", "ipv4_addr", []string{r.lab.K3s.PodCIDR.String()})
	r.set("admins", "ipv4_addr", family(admins, true))
	r.set("admins6", "ipv6_addr", family(admins, false))
	r.set("load_balancers", "ipv4_addr", ranges(r.lab.Network.LoadBalancerPool))
	r.input()
	r.fromNodes()
	r.fromPods()
	r.entered()
	r.allowed()
	if r.lab.K3s.CNI == "flannel" {
		r.forward()
	}
	r.line("}")
	return r.text.String()
}

func (r *ruleset) set(name, kind string, elements []string) {
	r.line("\tset %s {\n\t\ttype %s\n\t\tflags interval\n\t\tauto-merge", name, kind)
	if len(elements) > 0 {
		r.line("\t\telements = { %s }", strings.Join(elements, ", "))
	}
	r.line("\t}")
}

// input judges what is for the machine itself.
func (r *ruleset) input() {
	r.line("\tchain input {\n\t\ttype filter hook input priority filter - 5; policy drop;")
	r.line("\t\tiif \"lo\" accept")
	r.line("\t\tct state vmap { established : accept, related : accept }")
	r.line("\t\tct state invalid counter name \"dropped_input\" drop")
	r.rule("errors and ping", "icmp type { destination-unreachable, echo-request, time-exceeded, parameter-problem } accept")
	r.rule("errors and ping", "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request } accept")
	r.rule("neighbours", "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept")
	r.rule("neighbours", "icmpv6 type { mld-listener-query, mld-listener-report, mld2-listener-report } ip6 saddr fe80::/10 accept")
	r.rule("DHCP", "udp sport 67 udp dport 68 accept")
	r.line("\t\tjump allowed")
	r.line("\t\tip saddr @nodes jump from_nodes")
	if r.server {
		r.rule("etcd", "ip saddr @servers tcp dport 2379-2380 accept")
		if provider(r.lab) == config.VIPKeepalived {
			r.rule("VIP", "ip saddr @servers ip protocol vrrp accept")
		}
	}
	r.line("\t\tct status dnat jump entered")
	r.line("\t\tip saddr @pods goto from_pods") // pods are no admins, whatever networks are
	ports := "22"
	if r.server {
		ports = fmt.Sprintf("{ 22, %d }", APIPort)
	}
	r.rule("admins", "ip saddr @admins tcp dport %s accept", ports)
	r.rule("admins", "ip6 saddr @admins6 tcp dport %s accept", ports)
	r.line("\t\tcounter name \"dropped_input\" drop\n\t}")
}

// fromNodes is what nodes ask of each other. What a pod asks of another machine
// comes from its node's address, because flannel hides it behind that.
func (r *ruleset) fromNodes() {
	r.line("\tchain from_nodes {")
	// Where nothing has followed connections before, the answer on one that is open
	// may come first, and looks like a beginning: streams of etcd stalled for that
	// until K3s gave up. To who has no such connection the kernel says no.
	r.rule("connections from before the firewall", "ct state new tcp flags & (fin | syn | rst | ack) == ack accept")
	r.rule("kubelet and metrics", "tcp dport { %s } accept", r.kubernetesPorts())
	switch flannelBackend(r.lab) {
	case "vxlan":
		r.rule("flannel VXLAN", "udp dport 8472 accept")
	case "wireguard-native":
		r.rule("flannel WireGuard", "udp dport 51820-51821 accept")
	}
	r.rule("MetalLB", "meta l4proto { tcp, udp } th dport 7946 accept")
	if on, _ := r.lab.K3s.ServerConfig["embedded-registry"].(bool); on {
		r.rule("registry mirror", "tcp dport 5001 accept")
	}
	r.line("\t}")
}

// fromPods is what pods may ask of the machine they run on.
func (r *ruleset) fromPods() {
	r.line("\tchain from_pods {")
	r.rule("kubelet and metrics", "tcp dport { %s } accept", r.kubernetesPorts())
	r.line("\t\tcounter name \"dropped_input\" drop\n\t}")
}

// kubernetesPorts are the API on servers, kubelet, and where Prometheus finds
// metrics: node exporter, kube-proxy, and on servers etcd, controller-manager
// and scheduler.
func (r *ruleset) kubernetesPorts() string {
	ports := "9100, 10249, 10250"
	if r.server {
		ports = fmt.Sprintf("2381, %d, %s, 10257, 10259", APIPort, ports)
	}
	return ports
}

// entered is what kube-proxy leads on to a pod, from outside the cluster: judged
// by what was asked for, not by where it is led.
func (r *ruleset) entered() {
	r.line("\tchain entered {")
	r.rule("load balancers", "ct original ip daddr @load_balancers accept")
	r.line("\t\tjump allowed")
	if !slices.Contains(r.lab.K3s.Disable, "servicelb") {
		for _, protocol := range []string{"tcp", "udp"} {
			r.rule("ServiceLB", "meta l4proto %s ct original proto-dst != %s accept", protocol, nodePorts(r.lab))
		}
	}
	r.line("\t}")
}

// allowed is what the settings open.
func (r *ruleset) allowed() {
	r.line("\tchain allowed {")
	open := func(what, protocol string, from []netip.Prefix, ports string) {
		for _, f := range []struct {
			match string
			four  bool
		}{{"ip saddr", true}, {"ip6 saddr", false}} {
			if list := family(from, f.four); list != nil {
				r.rule(what, "%s { %s } meta l4proto %s ct original proto-dst %s accept", f.match, strings.Join(list, ", "), protocol, ports)
			}
		}
	}
	for _, protocol := range []string{"tcp", "udp"} {
		open("NodePorts", protocol, r.lab.Firewall.NodePortsFrom, nodePorts(r.lab))
	}
	for _, rule := range r.lab.Firewall.Allow {
		if slices.Contains(rule.Roles, r.m.Role) {
			// One rule for each range: nft does not read its own listing of a set
			// of them.
			for _, p := range joined(rule.Ports) {
				open(rule.Name, rule.Protocol, rule.From, p.String())
			}
		}
	}
	r.line("\t}")
}

// forward judges what goes through the machine, to its pods and from them. It is
// flannel's way; what other network plugins do is theirs.
func (r *ruleset) forward() {
	r.line("\tchain forward {\n\t\ttype filter hook forward priority filter - 5; policy drop;")
	r.line("\t\tct state vmap { established : accept, related : accept }")
	r.line("\t\tip saddr @pods accept")
	r.line("\t\tip saddr @nodes ip daddr @pods accept")
	r.line("\t\tct status dnat jump entered")
	r.line("\t\tcounter name \"dropped_forward\" drop\n\t}")
}

// admins are the networks people log in from.
func (r *ruleset) admins() []netip.Prefix {
	if len(r.lab.Network.AdminNetworks) > 0 {
		return r.lab.Network.AdminNetworks
	}
	return append([]netip.Prefix{r.lab.Network.CIDR}, privateNetworks...)
}

func addresses(machines []*config.Machine) []string {
	var out []string
	for _, m := range machines {
		out = append(out, m.IP.String())
	}
	return out
}

// family returns the networks of one family, without those that lie in others.
func family(networks []netip.Prefix, four bool) []string {
	var out []string
	for i, p := range networks {
		inOther := slices.ContainsFunc(networks, func(o netip.Prefix) bool { return o.Bits() < p.Bits() && o.Contains(p.Addr()) })
		if p.Addr().Is4() == four && !inOther && !slices.Contains(networks[:i], p) {
			out = append(out, p.String())
		}
	}
	return out
}

func ranges(list []config.Range) []string {
	var out []string
	for _, l := range list {
		if l.From.Is4() {
			out = append(out, fmt.Sprintf("%s-%s", l.From, l.To))
		}
	}
	return out
}

// joined joins ranges that touch or overlap.
func joined(list []config.PortRange) []config.PortRange {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b config.PortRange) int { return a.From - b.From })
	var merged []config.PortRange
	for _, p := range list {
		if last := len(merged) - 1; last >= 0 && p.From <= merged[last].To+1 {
			merged[last].To = max(merged[last].To, p.To)
			continue
		}
		merged = append(merged, p)
	}
	return merged
}

// nodePorts is the range Kubernetes takes NodePorts from.
func nodePorts(lab *config.Lab) string {
	if text, ok := lab.K3s.ServerConfig["service-node-port-range"].(string); ok && text != "" {
		return text
	}
	return "30000-32767"
}

// flannelBackend is how flannel carries pod traffic between machines: what the
// user gave K3s itself wins, as it does in K3s's configuration.
func flannelBackend(lab *config.Lab) string {
	if lab.K3s.CNI != "flannel" {
		return ""
	}
	if text, ok := lab.K3s.ServerConfig["flannel-backend"].(string); ok && text != "" {
		return text
	}
	return cmp.Or(lab.K3s.FlannelBackend, "vxlan")
}
