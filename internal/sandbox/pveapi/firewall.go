package pveapi

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Firewall is the firewall configuration of the cluster, a node or a VM. Rules
// are kept, not enforced.
type Firewall struct {
	Options map[string]string     `json:"options"`
	Rules   []Rule                `json:"rules"`
	IPSets  map[string]*IPSet     `json:"ipsets"`
	Aliases map[string]*Alias     `json:"aliases"`
	Groups  map[string]*RuleGroup `json:"groups,omitempty"` // of the cluster only
}

// Rule is a firewall rule by its option names; its position is its index.
type Rule map[string]string

// IPSet is a named set of addresses and networks.
type IPSet struct {
	Comment string  `json:"comment,omitempty"`
	Entries []Entry `json:"entries"`
}

// Entry is one member of an IPSet.
type Entry struct {
	CIDR    string `json:"cidr"`
	Comment string `json:"comment,omitempty"`
	NoMatch bool   `json:"nomatch,omitempty"`
}

// Alias is a named address or network.
type Alias struct {
	CIDR    string `json:"cidr"`
	Comment string `json:"comment,omitempty"`
}

// RuleGroup is a security group: rules that others refer to.
type RuleGroup struct {
	Comment string `json:"comment,omitempty"`
	Rules   []Rule `json:"rules"`
}

// clone copies what a clone of a VM takes over.
func (f *Firewall) clone() *Firewall {
	c := newFirewall()
	if f == nil {
		return c
	}
	c.Options = maps.Clone(f.Options)
	for _, r := range f.Rules {
		c.Rules = append(c.Rules, maps.Clone(r))
	}
	for n, s := range f.IPSets {
		c.IPSets[n] = &IPSet{Comment: s.Comment, Entries: slices.Clone(s.Entries)}
	}
	for n, a := range f.Aliases {
		c.Aliases[n] = &Alias{CIDR: a.CIDR, Comment: a.Comment}
	}
	return c
}

func newFirewall() *Firewall {
	return &Firewall{Options: map[string]string{}, IPSets: map[string]*IPSet{}, Aliases: map[string]*Alias{}, Groups: map[string]*RuleGroup{}}
}

// scope says whose firewall calls under a path concern.
type scope struct {
	base   string
	audit  string // privilege to read
	modify string // privilege to change
	find   func(s *Server, r *request) (*Firewall, error)
	// options there are, for PUT …/options.
	options []string
}

func scopes() []scope {
	return []scope{
		{
			base: "/cluster/firewall", audit: "Sys.Audit", modify: "Sys.Modify",
			find:    func(s *Server, _ *request) (*Firewall, error) { return s.state.Firewall, nil },
			options: []string{"ebtables", "enable", "log_ratelimit", "policy_forward", "policy_in", "policy_out"},
		},
		{
			base: "/nodes/{node}/firewall", audit: "Sys.Audit", modify: "Sys.Modify",
			find: func(s *Server, r *request) (*Firewall, error) {
				if s.state.NodeFW[r.node()] == nil {
					s.state.NodeFW[r.node()] = newFirewall()
				}
				return s.state.NodeFW[r.node()], nil
			},
			options: []string{
				"enable", "log_level_forward", "log_level_in", "log_level_out", "log_nf_conntrack", "ndp", "nf_conntrack_allow_invalid",
				"nf_conntrack_helpers", "nf_conntrack_max", "nf_conntrack_tcp_timeout_established", "nf_conntrack_tcp_timeout_syn_recv",
				"nftables", "nosmurfs", "protection_synflood", "protection_synflood_burst", "protection_synflood_rate", "smurf_log_level",
				"tcp_flags_log_level", "tcpflags",
			},
		},
		{
			base: "/nodes/{node}/qemu/{vmid}/firewall", audit: "VM.Audit", modify: "VM.Config.Network",
			find: func(s *Server, r *request) (*Firewall, error) {
				id := r.vmid()
				if s.state.VMFW[id] == nil {
					s.state.VMFW[id] = newFirewall()
				}
				return s.state.VMFW[id], nil
			},
			options: []string{
				"dhcp", "enable", "ipfilter", "log_level_in", "log_level_out", "macfilter", "ndp", "policy_in", "policy_out", "radv",
			},
		},
	}
}

func firewallRoutes() []route {
	var out []route
	for _, sc := range scopes() {
		out = append(out, optionRoutes(sc)...)
		out = append(out, setRoutes(sc)...)
		out = append(out, aliasRoutes(sc)...)
		out = append(out, ruleRoutes(sc.base+"/rules", sc, func(s *Server, r *request) (*[]Rule, *Firewall, error) {
			f, err := sc.find(s, r)
			if err != nil {
				return nil, nil, err
			}
			return &f.Rules, f, nil
		})...)
	}
	return append(out, groupRoutes()...)
}

func optionRoutes(sc scope) []route {
	return []route{
		{method: http.MethodGet, path: sc.base, privilege: sc.audit, handle: func(*Server, *request) (any, error) {
			return []object{{"name": "aliases"}, {"name": "ipset"}, {"name": "options"}, {"name": "rules"}}, nil
		}},
		{method: http.MethodGet, path: sc.base + "/options", privilege: sc.audit, handle: func(s *Server, r *request) (any, error) {
			f, err := sc.find(s, r)
			if err != nil {
				return nil, err
			}
			out := object{"digest": digestOf(f.Options)}
			for k, v := range f.Options {
				out[k] = numberOrText(v)
			}
			return out, nil
		}},
		{method: http.MethodPut, path: sc.base + "/options", privilege: sc.modify, handle: func(s *Server, r *request) (any, error) {
			f, err := sc.find(s, r)
			if err != nil {
				return nil, err
			}
			return nil, sc.setOptions(f, r)
		}},
	}
}

func (sc scope) setOptions(f *Firewall, r *request) error {
	if d := r.get("digest"); d != "" && d != digestOf(f.Options) {
		return failed("detected modified configuration - file changed by other user? Try again.")
	}
	for _, k := range sortedKeys(r.params) {
		if k != "delete" && k != "digest" && !slices.Contains(sc.options, k) {
			return badParam(k, "property is not defined in schema and the schema does not allow additional properties")
		}
		if v := r.get(k); strings.HasPrefix(k, "policy_") && !slices.Contains([]string{"ACCEPT", "REJECT", "DROP"}, v) {
			return badParam(k, "value '%s' does not have a value in the enumeration 'ACCEPT, REJECT, DROP'", v)
		}
	}
	for _, k := range splitList(r.get("delete")) {
		if !slices.Contains(sc.options, k) {
			return badParam("delete", "no such option '%s'", k)
		}
		delete(f.Options, k)
	}
	for k, v := range r.params {
		if k != "delete" && k != "digest" {
			f.Options[k] = v
		}
	}
	return nil
}

// numberOrText gives an option the JSON type it has in answers.
func numberOrText(v string) any {
	if n, err := strconv.Atoi(v); err == nil {
		return n
	}
	return v
}

func aliasRoutes(sc scope) []route {
	one := func(h func(f *Firewall, r *request, name string, a *Alias) (any, error)) func(*Server, *request) (any, error) {
		return func(s *Server, r *request) (any, error) {
			f, err := sc.find(s, r)
			if err != nil {
				return nil, err
			}
			name := r.path("name")
			a := f.Aliases[name]
			if a == nil {
				return nil, badParam("name", "no such alias")
			}
			return h(f, r, name, a)
		}
	}
	return []route{
		{method: http.MethodGet, path: sc.base + "/aliases", privilege: sc.audit, handle: func(s *Server, r *request) (any, error) {
			f, err := sc.find(s, r)
			if err != nil {
				return nil, err
			}
			out := []object{}
			for _, n := range sortedNames(f.Aliases) {
				out = append(out, f.Aliases[n].object(n))
			}
			return out, nil
		}},
		{method: http.MethodPost, path: sc.base + "/aliases", privilege: sc.modify, handle: func(s *Server, r *request) (any, error) {
			f, err := sc.find(s, r)
			if err != nil {
				return nil, err
			}
			return nil, f.addAlias(r)
		}},
		{method: http.MethodGet, path: sc.base + "/aliases/{name}", privilege: sc.audit, handle: one(func(_ *Firewall, _ *request, name string, a *Alias) (any, error) {
			return a.object(name), nil
		})},
		{method: http.MethodPut, path: sc.base + "/aliases/{name}", privilege: sc.modify, handle: one(func(f *Firewall, r *request, name string, a *Alias) (any, error) {
			return nil, f.changeAlias(r, name, a)
		})},
		{method: http.MethodDelete, path: sc.base + "/aliases/{name}", privilege: sc.modify, handle: one(func(f *Firewall, _ *request, name string, _ *Alias) (any, error) {
			delete(f.Aliases, name)
			return nil, nil
		})},
	}
}

func (a *Alias) object(name string) object {
	o := object{"name": name, "cidr": a.CIDR, "ipversion": 4, "digest": digestOf(map[string]string{name: a.CIDR + a.Comment})}
	if strings.Contains(a.CIDR, ":") {
		o["ipversion"] = 6
	}
	if a.Comment != "" {
		o["comment"] = a.Comment
	}
	return o
}

func (f *Firewall) addAlias(r *request) error {
	if err := r.require("name", "cidr"); err != nil {
		return err
	}
	name := strings.ToLower(r.get("name"))
	if f.Aliases[name] != nil {
		return badParam("name", "alias '%s' already exists", name)
	}
	cidr, err := parseCIDR(r.get("cidr"))
	if err != nil {
		return badParam("cidr", "%v", err)
	}
	f.Aliases[name] = &Alias{CIDR: cidr, Comment: r.get("comment")}
	return nil
}

func (f *Firewall) changeAlias(r *request, name string, a *Alias) error {
	if err := r.require("cidr"); err != nil {
		return err
	}
	cidr, err := parseCIDR(r.get("cidr"))
	if err != nil {
		return badParam("cidr", "%v", err)
	}
	to := strings.ToLower(r.get("rename"))
	if to != "" && to != name {
		if f.Aliases[to] != nil {
			return badParam("name", "alias '%s' already exists", to)
		}
		delete(f.Aliases, name)
		f.Aliases[to] = a
	}
	a.CIDR, a.Comment = cidr, r.get("comment")
	return nil
}
