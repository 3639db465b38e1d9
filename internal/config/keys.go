package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// renamed is one foreign key found in a file.
type renamed struct {
	from  *node // the key as it is written
	value *node // the value as it is written
	to    foreign
	text  string // the converted value; "" keeps it
	clash bool   // our key is there as well
	ok    bool   // it can be rewritten
}

// walk checks the keys of a tree against its shape. Foreign names are given to
// found and then put under ours, so that what follows reads them like any other.
// Unknown keys are problems.
func (c *checker) walk(n *node, s *shape, path string, found func(renamed)) {
	if s == nil {
		return
	}
	switch n.kind { //nolint:exhaustive // scalars have no keys
	case kindList:
		for i, item := range n.items {
			c.walk(item, s.items, fmt.Sprintf("%s[%d]", path, i), found)
		}
	case kindMap:
		for _, e := range n.entries {
			c.walkEntry(n, e, s, path, found)
		}
	}
}

func (c *checker) walkEntry(n *node, e *entry, s *shape, path string, found func(renamed)) {
	name := e.key.text
	if s.keys != nil && s.keys[name] == nil {
		to, known := s.other[name]
		if !known {
			c.unknown(e.key, s, path)
			return
		}
		r := renamed{from: e.key, value: e.value, to: to, clash: n.get(to.name) != nil}
		r.text, r.ok = "", !to.moved
		if r.ok {
			r.text, r.ok = to.convert(e.value)
			r.ok = r.ok && !r.clash
		}
		found(r)
		if !r.ok {
			return
		}
		e.key, e.value = e.key.with(to.name), e.value.with(r.text)
		name = to.name
	}
	below := path + "." + name
	if path == "" {
		below = name
	}
	c.walk(e.value, s.under(name), below, found)
}

// with returns a copy of the node that holds the scalar text, or the node itself
// for none.
func (n *node) with(text string) *node {
	if text == "" {
		return n
	}
	changed := &node{at: n.at, size: n.size, kind: kindText}
	if list, ok := strings.CutPrefix(text, "["); ok {
		changed.kind, changed.items = kindList, []*node{n.with(strings.TrimSuffix(list, "]"))}
		return changed
	}
	changed.text = strings.Trim(text, `"`)
	if changed.text == text {
		changed.plain = true
		changed.kind, _ = classify(text)
	}
	return changed
}

// unknown reports a key no setting has.
func (c *checker) unknown(key *node, s *shape, path string) {
	if path == "" && reservedByAnsible(key.text) {
		c.errorf(key.at, "own variables belong in ansible/group_vars/k3s_cluster.yaml, under a name of their own",
			"%s is reserved by Ansible and would change how it runs", key.text)
		return
	}
	where := ""
	if path != "" {
		where = path + ": "
	}
	valid := slices.Sorted(maps.Keys(s.keys))
	hint := "valid here: " + strings.Join(valid, ", ")
	if near := nearest(key.text, valid); near != "" {
		hint = fmt.Sprintf("did you mean %s? %s", near, hint)
	}
	c.errorf(key.at, hint, "%sunknown key %s", where, key.text)
}

// nearest returns the candidate most like the word, or "" when none is.
func nearest(word string, candidates []string) string {
	best, bestScore := "", 0.5
	for _, candidate := range candidates {
		score := levenshtein.Match(strings.ToLower(word), strings.ToLower(candidate), nil)
		if score >= bestScore && (best == "" || score > bestScore) {
			best, bestScore = candidate, score
		}
	}
	return best
}

// foreignProblem says what a foreign name is called here.
func (c *checker) foreignProblem(r renamed) {
	name, ours := r.from.text, r.to.name
	shown := r.text
	if shown == "" && r.value.kind != kindMap && r.value.kind != kindList {
		shown = r.value.text
	}
	switch {
	case r.to.moved:
		c.errorf(r.from.at, "move it there by hand", "%s is called %s here", name, ours)
	case r.clash:
		c.errorf(r.from.at, "remove "+name+": "+ours+" is set as well", "%s is called %s here", name, ours)
	case !r.ok:
		c.errorf(r.from.at, fmt.Sprintf("write %s by hand: %q has no sure meaning", ours, r.value.text), "%s is called %s here", name, ours)
	case shown == "":
		c.errorf(r.from.at, fmt.Sprintf("write %s:, or run k3lab fmt", ours), "%s is called %s here", name, ours)
	default:
		c.errorf(r.from.at, fmt.Sprintf("write %s: %s, or run k3lab fmt", ours, shown), "%s is called %s here", name, ours)
	}
}

// reservedByAnsible reports whether Ansible takes a variable of that name for a
// keyword of plays, blocks and tasks, or for one of its own variables.
func reservedByAnsible(name string) bool {
	return slices.Contains(strings.Fields(ansibleNames), name) || strings.HasPrefix(name, "ansible_")
}

const ansibleNames = `
action always any_errors_fatal args async become become_exe become_flags become_method become_user block changed_when
check_mode collections connection debugger delay delegate_facts delegate_to diff environment fact_path failed_when
force_handlers gather_facts gather_subset gather_timeout group_names groups handlers hosts hostvars ignore_errors
ignore_unreachable include import_playbook import_role import_tasks include_role include_tasks inventory_dir
inventory_file inventory_hostname inventory_hostname_short listen local_action loop loop_control
max_fail_percentage module_defaults name no_log notify omit order playbook_dir play_hosts poll port post_tasks
pre_tasks register remote_user rescue retries role_name role_names role_path roles run_once serial strategy tags
tasks throttle timeout until vars vars_files vars_prompt when with_`
