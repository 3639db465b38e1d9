package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Firewall is the firewall block of all.yaml.
type Firewall struct {
	Enabled bool // default true
	// NodePortsFrom are the networks that may reach NodePort services.
	NodePortsFrom []netip.Prefix
	Allow         []FirewallRule
}

// FirewallRule opens ports of machines to networks.
type FirewallRule struct {
	Name     string
	Ports    []PortRange
	Protocol string // tcp or udp
	From     []netip.Prefix
	Roles    []Role // of the machines whose ports are opened
}

// PortRange is an inclusive range of ports.
type PortRange struct{ From, To int }

// String returns the range as it is written in the settings.
func (p PortRange) String() string {
	if p.From == p.To {
		return strconv.Itoa(p.From)
	}
	return fmt.Sprintf("%d-%d", p.From, p.To)
}

func firewallShape() *shape {
	rule := &shape{
		keys: keys("name", "ports", "protocol", "from", "roles"),
		other: foreignNames(
			rename("ports", toList, "port", "dport", "dest_port"),
			rename("protocol", same, "proto"),
			rename("from", toList, "source", "sources", "src", "cidr", "cidrs"),
			rename("roles", toList, "role"),
		),
	}
	s := &shape{
		keys:  keys("enabled", "node_ports_from"),
		other: foreignNames(rename("enabled", same, "enable"), rename("allow", same, "rules", "allow_rules")),
	}
	s.keys["allow"] = &shape{items: rule}
	return s
}

func (c *checker) firewall(o object) Firewall {
	f := Firewall{Enabled: o.bool("enabled", true), NodePortsFrom: c.networks(o, "node_ports_from")}
	first := map[string]string{}
	for _, e := range o.list("allow") {
		rule := c.objectOf(e)
		if rule.node == nil {
			continue
		}
		r := c.firewallRule(rule)
		if other, ok := first[r.Name]; ok {
			c.errorAt(rule.key+".name", "give every rule a name of its own", "%q is the name of another rule already (%s)", r.Name, c.line(other, rule.key))
		} else if r.Name != "" {
			first[r.Name] = rule.key + ".name"
		}
		f.Allow = append(f.Allow, r)
	}
	return f
}

// ruleName is shown by nft, in quotes.
var ruleName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._/-]{0,62}$`)

func (c *checker) firewallRule(o object) FirewallRule {
	o.require("name", "ports", "from")
	r := FirewallRule{
		Name:     o.text("name", ""),
		Ports:    c.ports(o, "ports"),
		Protocol: o.choice("protocol", "tcp", "tcp", "udp"),
		From:     c.networks(o, "from"),
		Roles:    []Role{RoleServer, RoleAgent},
	}
	if r.Name != "" && !ruleName.MatchString(r.Name) {
		c.errorAt(o.key+".name", "use letters, digits, spaces and . _ / -, at most 63", "%q cannot be a rule's name", r.Name)
	}
	if _, _, ok := o.get("roles"); ok {
		r.Roles = nil
		for _, e := range o.texts("roles") {
			role := Role(e.node.text)
			if text, ok := toRole(e.node); ok {
				role = Role(text)
			}
			if role != RoleServer && role != RoleAgent {
				c.errorAt(e.key, "valid: server, agent", "%q is no role of a node", e.node.text)
				continue
			}
			r.Roles = append(r.Roles, role)
		}
	}
	return r
}

// ports reads a list of ports and ranges such as "8000-8010".
func (c *checker) ports(o object, name string) []PortRange {
	var out []PortRange
	for _, e := range o.list(name) {
		first, last, ranged := strings.Cut(e.node.text, "-")
		if !ranged {
			last = first
		}
		from, errFrom := strconv.Atoi(strings.TrimSpace(first))
		to, errTo := strconv.Atoi(strings.TrimSpace(last))
		if e.node.kind != kindInt && (e.node.kind != kindText || !ranged) || errFrom != nil || errTo != nil {
			c.errorAt(e.key, `write a port such as 8080, or "8000-8010"`, "%q is neither a port nor a range of ports", e.node.text)
			continue
		}
		if from < 1 || to > 65535 || to < from {
			c.errorAt(e.key, "ports are 1 to 65535", "%s is out of range", e.node.text)
			continue
		}
		out = append(out, PortRange{from, to})
	}
	return out
}

// networks reads a list of networks.
func (c *checker) networks(o object, name string) []netip.Prefix {
	var out []netip.Prefix
	for _, e := range o.texts(name) {
		if p := c.parseNetwork(e.node.text, e.key); p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}
