package infra

import (
	"cmp"
	"slices"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"

	"github.com/k3lab/k3lab/internal/step"
)

// layer is the layer of every change of this package.
const layer = "infra"

// changes turns a plan into changes, pools and images first, machines in the
// order of their names.
func (n naming) changes(plan *tfjson.Plan) []step.Change {
	type entry struct {
		subject
		change step.Change
	}
	var entries []entry
	templates, unfinished := map[string]bool{}, tainted(plan)
	for _, rc := range plan.ResourceChanges {
		if rc.Type == typeVM && rc.Name == "template" && action(rc.Change) != "" {
			templates[rc.ModuleAddress+"/"+n.subjectOfChange(rc).object] = true
		}
	}
	for _, rc := range plan.ResourceChanges {
		act := action(rc.Change)
		if act == "" {
			continue
		}
		s := n.subjectOfChange(rc)
		// What a template is made from is only worth a line where the template is not.
		if rc.Type == typeTrigger && templates[rc.ModuleAddress+"/"+s.object] {
			continue
		}
		c := describe(s, act, rc)
		if act == step.Replace && unfinished[rc.Address] {
			c.Detail, c.Before, c.After = "its creation did not finish", "", ""
		}
		entries = append(entries, entry{s, c})
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.object, b.object), cmp.Compare(a.resource, b.resource))
	})
	var out []step.Change
	for _, e := range entries {
		out = append(out, e.change)
	}
	return append(out, outputs(plan)...)
}

func describe(s subject, act step.Action, rc *tfjson.ResourceChange) step.Change {
	c := step.Change{Layer: layer, Object: s.object, Resource: s.resource, Action: act}
	switch act {
	case step.Create:
		c.Detail = summary(s, rc.Change.After)
	case step.Delete:
		c.Detail = summary(s, rc.Change.Before)
	default:
		differences := slices.DeleteFunc(compare(rc.Change), func(d difference) bool {
			// What is taken over has only been read in part: empty may be unknown.
			return s.follows(d.path) || rc.Change.Importing != nil && d.before == `""`
		})
		if s.resource == inventoryFile && len(differences) == 0 {
			c.Detail = "the file was changed or removed"
			break
		}
		if s.machine && onlyStarts(differences) {
			c.Action, c.Detail = step.Start, "it is powered off"
			break
		}
		var lines, before, after []string
		for _, d := range differences {
			name := d.name(s)
			lines = append(lines, name+" "+d.before+" → "+d.after)
			before = append(before, name+": "+d.before)
			after = append(after, name+": "+d.after)
		}
		c.Detail = strings.Join(lines, ", ")
		c.Before, c.After = strings.Join(before, "\n"), strings.Join(after, "\n")
		if s.machine && needsRestart(differences) {
			c.Detail += " (takes effect when the machine restarts)"
		}
	}
	switch {
	case rc.Change.Importing != nil && rc.Name == adopted:
		c.Detail = strings.TrimSuffix("taken over as it is; "+c.Detail, "; ")
	case rc.Change.Importing != nil:
		c.Detail = strings.TrimSuffix("taken over from an interrupted run; "+c.Detail, "; ")
	}
	return c
}

// action translates a change's actions; "" is nothing to do.
func action(c *tfjson.Change) step.Action {
	switch a := c.Actions; {
	case a.Create():
		return step.Create
	case a.Update():
		return step.Update
	case a.Delete():
		return step.Delete
	case a.Replace():
		return step.Replace
	case c.Importing != nil:
		return step.Update
	}
	return ""
}

// outputs are the changes of output values: they exist only in the state, but
// a plan that has them is not empty.
func outputs(plan *tfjson.Plan) []step.Change {
	var out []step.Change
	for name, c := range plan.OutputChanges {
		if act := action(c); act != "" {
			out = append(out, describe(subject{object: "workspace", resource: "output " + name}, act, &tfjson.ResourceChange{Change: c}))
		}
	}
	slices.SortFunc(out, func(a, b step.Change) int { return cmp.Compare(a.Resource, b.Resource) })
	return out
}
