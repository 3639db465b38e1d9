package pveapi

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ruleOptions are what a rule may say.
func ruleOptions() []string {
	return []string{
		"action", "comment", "dest", "dport", "enable", "icmp-type", "iface", "log", "macro", "proto", "source", "sport", "type",
	}
}

// ruleList finds the list of rules a path concerns, and the firewall whose
// sets and aliases its rules may name.
type ruleList func(s *Server, r *request) (*[]Rule, *Firewall, error)

// ruleRoutes serve one list of rules: a firewall's own or a security group's.
func ruleRoutes(base string, sc scope, find ruleList) []route {
	at := func(h func(s *Server, r *request, f *Firewall, list *[]Rule, pos int) (any, error)) func(*Server, *request) (any, error) {
		return func(s *Server, r *request) (any, error) {
			list, f, err := find(s, r)
			if err != nil {
				return nil, err
			}
			pos, err := strconv.Atoi(r.path("pos"))
			if err != nil || pos < 0 {
				return nil, badParam("pos", "type check ('integer') failed - got '%s'", r.path("pos"))
			}
			if pos >= len(*list) {
				return nil, failed("no rule at position %d", pos)
			}
			if d := r.get("digest"); d != "" && d != digestRules(*list) {
				return nil, failed("detected modified configuration - file changed by other user? Try again.")
			}
			return h(s, r, f, list, pos)
		}
	}
	return []route{
		{method: http.MethodGet, path: base, privilege: sc.audit, handle: func(s *Server, r *request) (any, error) {
			list, _, err := find(s, r)
			if err != nil {
				return nil, err
			}
			out := []object{}
			for i, rule := range *list {
				o := rule.object(*list)
				o["pos"] = i
				out = append(out, o)
			}
			return out, nil
		}},
		{method: http.MethodPost, path: base, privilege: sc.modify, handle: func(s *Server, r *request) (any, error) {
			list, f, err := find(s, r)
			if err != nil {
				return nil, err
			}
			rule, err := s.newRule(f, r)
			if err != nil {
				return nil, err
			}
			*list = slices.Insert(*list, 0, rule) // new rules come first
			return nil, nil
		}},
		{method: http.MethodGet, path: base + "/{pos}", privilege: sc.audit, handle: at(func(_ *Server, _ *request, _ *Firewall, list *[]Rule, pos int) (any, error) {
			o := (*list)[pos].object(*list)
			o["pos"] = strconv.Itoa(pos) // text here, a number in lists: so does Proxmox
			return o, nil
		})},
		{method: http.MethodPut, path: base + "/{pos}", privilege: sc.modify, handle: at(changeRule)},
		{method: http.MethodDelete, path: base + "/{pos}", privilege: sc.modify, handle: at(func(_ *Server, _ *request, _ *Firewall, list *[]Rule, pos int) (any, error) {
			*list = slices.Delete(*list, pos, pos+1)
			return nil, nil
		})},
	}
}

func (rule Rule) object(list []Rule) object {
	o := object{"digest": digestRules(list)}
	for k, v := range rule {
		o[k] = v
		if k == "enable" {
			o[k] = numberOrText(v)
		}
	}
	return o
}

func (s *Server) newRule(f *Firewall, r *request) (Rule, error) {
	if err := r.require("type", "action"); err != nil {
		return nil, err
	}
	rule := Rule{"enable": "0"} // unless said otherwise
	rule.copy(r)
	if err := s.checkRule(f, rule); err != nil {
		return nil, err
	}
	return rule, nil
}

// copy takes over what the request says; an empty value removes.
func (rule Rule) copy(r *request) {
	for _, k := range ruleOptions() {
		if !r.has(k) {
			continue
		}
		rule[k] = r.get(k)
		if rule[k] == "" {
			delete(rule, k)
		}
	}
}

func changeRule(s *Server, r *request, f *Firewall, list *[]Rule, pos int) (any, error) {
	if r.has("moveto") {
		to, err := r.number("moveto", 0)
		if err != nil {
			return nil, err
		}
		rule := (*list)[pos]
		*list = slices.Delete(*list, pos, pos+1)
		if to > pos {
			to--
		}
		*list = slices.Insert(*list, max(0, min(to, len(*list))), rule)
		return nil, nil
	}
	rule := Rule{}
	for k, v := range (*list)[pos] {
		rule[k] = v
	}
	rule.copy(r)
	for _, k := range splitList(r.get("delete")) {
		delete(rule, k)
	}
	if err := s.checkRule(f, rule); err != nil {
		return nil, err
	}
	(*list)[pos] = rule
	return nil, nil
}

// checkRule verifies a rule and that what it refers to exists.
func (s *Server) checkRule(f *Firewall, rule Rule) error {
	switch rule["type"] {
	case "in", "out", "forward":
		if !slices.Contains([]string{"ACCEPT", "DROP", "REJECT"}, rule["action"]) {
			return badParam("action", "unknown action '%s'", rule["action"])
		}
		if rule["type"] == "forward" && rule["action"] == "REJECT" {
			return badParam("action", "cannot define REJECT rules on forward chain")
		}
	case "group": // which may name a group that does not exist
		if !regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]+$`).MatchString(rule["action"]) {
			return badParam("action", "invalid characters in security group name")
		}
	default:
		return badParam("type", "unknown rule type '%s'", rule["type"])
	}
	for _, k := range []string{"dport", "sport"} {
		if rule[k] != "" && !slices.Contains([]string{"tcp", "udp", "udplite", "sctp", "dccp"}, rule["proto"]) {
			return badParam("proto", "missing property - '%s' requires this property", k)
		}
	}
	for _, k := range []string{"source", "dest"} {
		if err := s.checkAddresses(f, rule[k]); err != "" {
			return badParam(k, "%s", err)
		}
	}
	return nil
}

// checkAddresses verifies a rule's source or destination: "+ipset", an alias,
// or a list of addresses, networks and ranges. It returns what is wrong.
func (s *Server) checkAddresses(f *Firewall, value string) string {
	scopeFree := func(name string) string {
		name = strings.TrimPrefix(name, "dc/")
		return strings.TrimPrefix(name, "guest/")
	}
	for _, item := range strings.Split(value, ",") {
		if item == "" {
			continue
		}
		if name, ok := strings.CutPrefix(item, "+"); ok {
			name = scopeFree(name)
			if f.IPSets[name] == nil && s.state.Firewall.IPSets[name] == nil {
				return "no such ipset '" + name + "'"
			}
			continue
		}
		if strings.Contains(item, "-") && strings.Count(item, ".") == 6 {
			continue // a range
		}
		if _, err := parseCIDR(item); err == nil {
			continue
		}
		name := strings.ToLower(scopeFree(item))
		if f.Aliases[name] == nil && s.state.Firewall.Aliases[name] == nil {
			return "no such alias '" + item + "'"
		}
	}
	return ""
}
