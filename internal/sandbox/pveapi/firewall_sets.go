package pveapi

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// parseCIDR checks an address or a network and returns it as written.
func parseCIDR(text string) (string, error) {
	if _, err := netip.ParseAddr(text); err == nil {
		return text, nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return "", fmt.Errorf("invalid IP/CIDR '%s'", text)
	}
	if p.IsSingleIP() {
		return p.Addr().String(), nil
	}
	return text, nil
}

// digestLength is that of Proxmox's digests, which are opaque to clients.
const digestLength = 40

// digestOf identifies a set of options.
func digestOf(m map[string]string) string {
	h := sha256.New()
	for _, k := range sortedKeys(m) {
		fmt.Fprintf(h, "%s: %s\n", k, m[k])
	}
	return hex.EncodeToString(h.Sum(nil))[:digestLength]
}

func digestRules(list []Rule) string {
	h := sha256.New()
	for i, r := range list {
		fmt.Fprintf(h, "%d %s\n", i, digestOf(r))
	}
	return hex.EncodeToString(h.Sum(nil))[:digestLength]
}

func setRoutes(sc scope) []route {
	base := sc.base + "/ipset"
	in := func(h func(f *Firewall, r *request, set *IPSet) (any, error)) func(*Server, *request) (any, error) {
		return func(s *Server, r *request) (any, error) {
			f, err := sc.find(s, r)
			if err != nil {
				return nil, err
			}
			set := f.IPSets[r.path("name")]
			if set == nil {
				return nil, failed("no such IPSet '%s'", r.path("name"))
			}
			return h(f, r, set)
		}
	}
	return []route{
		{method: http.MethodGet, path: base, privilege: sc.audit, handle: func(s *Server, r *request) (any, error) {
			f, err := sc.find(s, r)
			if err != nil {
				return nil, err
			}
			return f.listSets(), nil
		}},
		{method: http.MethodPost, path: base, privilege: sc.modify, handle: func(s *Server, r *request) (any, error) {
			f, err := sc.find(s, r)
			if err != nil {
				return nil, err
			}
			return nil, f.putSet(r)
		}},
		{method: http.MethodGet, path: base + "/{name}", privilege: sc.audit, handle: in(func(_ *Firewall, _ *request, set *IPSet) (any, error) {
			out := []object{}
			for _, e := range set.Entries {
				out = append(out, e.object())
			}
			return out, nil
		})},
		{method: http.MethodPost, path: base + "/{name}", privilege: sc.modify, handle: in(func(_ *Firewall, r *request, set *IPSet) (any, error) { return nil, set.add(r) })},
		{method: http.MethodDelete, path: base + "/{name}", privilege: sc.modify, handle: in(func(f *Firewall, r *request, set *IPSet) (any, error) {
			if len(set.Entries) > 0 && !r.flag("force") {
				return nil, failed("IPSet '%s' is not empty", r.path("name"))
			}
			delete(f.IPSets, r.path("name"))
			return nil, nil
		})},
		{method: http.MethodGet, path: base + "/{name}/{cidr}", privilege: sc.audit, handle: in(func(_ *Firewall, r *request, set *IPSet) (any, error) {
			i, err := set.find(r)
			if err != nil {
				return nil, err
			}
			return set.Entries[i].object(), nil
		})},
		{method: http.MethodPut, path: base + "/{name}/{cidr}", privilege: sc.modify, handle: in(func(_ *Firewall, r *request, set *IPSet) (any, error) {
			i, err := set.find(r)
			if err != nil {
				return nil, err
			}
			set.Entries[i].Comment, set.Entries[i].NoMatch = r.get("comment"), r.flag("nomatch")
			return nil, nil
		})},
		{method: http.MethodDelete, path: base + "/{name}/{cidr}", privilege: sc.modify, handle: in(func(_ *Firewall, r *request, set *IPSet) (any, error) {
			i, err := set.find(r)
			if err != nil {
				return nil, err
			}
			set.Entries = slices.Delete(set.Entries, i, i+1)
			return nil, nil
		})},
	}
}

func (e Entry) object() object {
	o := object{"cidr": e.CIDR, "digest": digestOf(map[string]string{e.CIDR: e.Comment})}
	if e.Comment != "" {
		o["comment"] = e.Comment
	}
	if e.NoMatch {
		o["nomatch"] = 1
	}
	return o
}

func (f *Firewall) listSets() []object {
	out := []object{}
	for _, n := range sortedNames(f.IPSets) {
		o := object{"name": n, "digest": digestOf(map[string]string{n: f.IPSets[n].Comment})}
		if c := f.IPSets[n].Comment; c != "" {
			o["comment"] = c
		}
		out = append(out, o)
	}
	return out
}

// putSet makes an IPSet or, with rename, changes one.
func (f *Firewall) putSet(r *request) error {
	if err := r.require("name"); err != nil {
		return err
	}
	name := r.get("name")
	if !r.has("rename") {
		if f.IPSets[name] != nil {
			return badParam("name", "IPSet '%s' already exists", name)
		}
		f.IPSets[name] = &IPSet{Comment: r.get("comment"), Entries: []Entry{}}
		return nil
	}
	old := r.get("rename")
	set := f.IPSets[old]
	if set == nil {
		return badParam("name", "IPSet '%s' does not exist", old)
	}
	if name != old && f.IPSets[name] != nil {
		return badParam("name", "IPSet '%s' does already exist", name)
	}
	delete(f.IPSets, old)
	if r.has("comment") {
		set.Comment = r.get("comment")
	}
	f.IPSets[name] = set
	return nil
}

func (set *IPSet) add(r *request) error {
	if err := r.require("cidr"); err != nil {
		return err
	}
	cidr, err := parseCIDR(r.get("cidr"))
	if err != nil {
		cidr = r.get("cidr") // an alias, which Proxmox resolves when it compiles the rules
		if strings.ContainsAny(cidr, "/ ") {
			return badParam("cidr", "%v", err)
		}
	}
	if strings.HasSuffix(cidr, "/0") {
		return badParam("cidr", "a zero prefix is not allowed in ipset entries")
	}
	if slices.ContainsFunc(set.Entries, func(e Entry) bool { return e.CIDR == cidr }) {
		return badParam("cidr", "address '%s' already exists", cidr)
	}
	set.Entries = slices.Insert(set.Entries, 0, Entry{CIDR: cidr, Comment: r.get("comment"), NoMatch: r.flag("nomatch")})
	return nil
}

// find is the index of the entry the path names.
func (set *IPSet) find(r *request) (int, error) {
	i := slices.IndexFunc(set.Entries, func(e Entry) bool { return e.CIDR == r.path("cidr") })
	if i < 0 {
		return 0, badParam("cidr", "no such IP/Network")
	}
	return i, nil
}

// groupRoutes serve the cluster's security groups.
func groupRoutes() []route {
	const base = "/cluster/firewall/groups"
	sc := scopes()[0]
	rules := ruleRoutes(base+"/{group}", sc, func(s *Server, r *request) (*[]Rule, *Firewall, error) {
		g := s.state.Firewall.Groups[r.path("group")]
		if g == nil {
			return nil, nil, failed("no such security group '%s'", r.path("group"))
		}
		return &g.Rules, s.state.Firewall, nil
	})
	return append(rules,
		route{method: http.MethodGet, path: base, privilege: sc.audit, handle: listGroups},
		route{method: http.MethodPost, path: base, privilege: sc.modify, handle: putGroup},
		route{method: http.MethodDelete, path: base + "/{group}", privilege: sc.modify, handle: deleteGroup},
	)
}

func listGroups(s *Server, _ *request) (any, error) {
	out := []object{}
	for _, n := range sortedNames(s.state.Firewall.Groups) {
		g := s.state.Firewall.Groups[n]
		o := object{"group": n, "digest": digestRules(g.Rules)}
		if g.Comment != "" {
			o["comment"] = g.Comment
		}
		out = append(out, o)
	}
	return out, nil
}

// putGroup makes a security group or, with rename, changes one.
func putGroup(s *Server, r *request) (any, error) {
	if err := r.require("group"); err != nil {
		return nil, err
	}
	groups, name := s.state.Firewall.Groups, r.get("group")
	if !r.has("rename") {
		if groups[name] != nil {
			return nil, badParam("group", "Security group '%s' already exists", name)
		}
		groups[name] = &RuleGroup{Comment: r.get("comment")}
		return nil, nil
	}
	old := r.get("rename")
	g := groups[old]
	if g == nil {
		return nil, badParam("group", "Security group '%s' does not exist", old)
	}
	if name != old && groups[name] != nil {
		return nil, badParam("group", "Security group '%s' does already exist", name)
	}
	delete(groups, old)
	if r.has("comment") {
		g.Comment = r.get("comment")
	}
	groups[name] = g
	return nil, nil
}

func deleteGroup(s *Server, r *request) (any, error) {
	name := r.path("group")
	g := s.state.Firewall.Groups[name]
	if g == nil {
		return nil, failed("no such security group '%s'", name)
	}
	if len(g.Rules) > 0 {
		return nil, failed("Security group '%s' is not empty", name)
	}
	delete(s.state.Firewall.Groups, name)
	return nil, nil
}
