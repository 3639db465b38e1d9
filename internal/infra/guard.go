package infra

import (
	"errors"
	"fmt"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/fault"
)

// guard refuses a plan that would take away what a machine's own settings still
// want: the machine itself, a disk, or a part of one. It judges the plan, not
// the configuration, so it also holds where the configuration was edited.
func (n naming) guard(plan *tfjson.Plan) error {
	unfinished := tainted(plan)
	var refused []error
	for _, rc := range plan.ResourceChanges {
		m := n.wanted(rc)
		if m == nil {
			continue
		}
		switch {
		case unfinished[rc.Address] && rc.DeposedKey == "":
			// Its creation failed half way, so there is nothing on it to lose.
		case rc.Change.Actions.Delete():
			refused = append(refused, fault.New(fault.Invalid, m.Name, keep(m),
				"the plan would destroy it (%s), but its settings want it", n.whyDeleted(rc, m)))
		case rc.Change.Actions.Replace():
			refused = append(refused, fault.New(fault.Invalid, m.Name, keep(m),
				"the plan would destroy it and make it anew, because of %s", whyReplaced(rc)))
		case rc.Change.Actions.Update():
			refused = append(refused, disksLost(m, rc.Change)...)
		}
	}
	return errors.Join(refused...)
}

// wanted returns the machine a resource is, if its settings want it to exist.
// It goes by the name the VM has in Proxmox as well as by its key.
func (n naming) wanted(rc *tfjson.ResourceChange) *config.Machine {
	if rc.Type != typeVM || rc.Name == "template" {
		return nil
	}
	before, _ := rc.Change.Before.(map[string]any)
	m := n.lab.Machine(fmt.Sprint(before["name"]))
	if m == nil {
		m = n.lab.Machine(fmt.Sprint(rc.Index))
	}
	if m == nil || !m.Enabled || m.Hypervisor == config.HypervisorNone {
		return nil
	}
	return m
}

// tainted lists the addresses whose creation failed.
func tainted(plan *tfjson.Plan) map[string]bool {
	out := map[string]bool{}
	if plan.PriorState == nil || plan.PriorState.Values == nil {
		return out
	}
	var visit func(m *tfjson.StateModule)
	visit = func(m *tfjson.StateModule) {
		if m == nil {
			return
		}
		for _, r := range m.Resources {
			if r.Tainted {
				out[r.Address] = true
			}
		}
		for _, child := range m.ChildModules {
			visit(child)
		}
	}
	visit(plan.PriorState.Values.RootModule)
	return out
}

func keep(m *config.Machine) string {
	return fmt.Sprintf("put the setting back; to really make it anew, run k3lab up once with `enabled: false` for %s", m.Name)
}

func (n naming) whyDeleted(rc *tfjson.ResourceChange, m *config.Machine) string {
	from := n.endpointOf(rc.ModuleAddress)
	if to := n.lab.Proxmox.Hypervisors[m.Hypervisor].Endpoint; from != "" && from != to {
		return fmt.Sprintf("endpoint %s → %s: machines do not move between endpoints", from, to)
	}
	return rc.Address + " is no longer in the configuration"
}

func whyReplaced(rc *tfjson.ResourceChange) string {
	s := subject{machine: true}
	var reasons []string
	for _, p := range rc.Change.ReplacePaths {
		path := ""
		for _, part := range list(p) {
			switch part := part.(type) {
			case string:
				path = strings.TrimPrefix(path+"."+part, ".")
			default:
				path += fmt.Sprintf("[%v]", part)
			}
		}
		reason := difference{path: path}.name(s)
		for _, d := range compare(rc.Change) {
			if d.path == path {
				reason += " " + d.before + " → " + d.after
			}
		}
		reasons = append(reasons, reason)
	}
	if len(reasons) == 0 {
		return rc.Address
	}
	return strings.Join(reasons, ", ")
}

// disksLost refuses disks that shrink or go, which the provider would only
// notice half way through applying.
func disksLost(m *config.Machine, c *tfjson.Change) []error {
	sizes := func(values any) map[string]float64 {
		out := map[string]float64{}
		for _, d := range list(at(values, "disk")) {
			size, err := number(at(d, "size"))
			if name, ok := at(d, "interface").(string); ok && err == nil {
				out[name] = size
			}
		}
		return out
	}
	var refused []error
	after := sizes(c.After)
	before, _, _ := byInterface(c.Before, nil, nil)
	for i, d := range list(at(before, "disk")) {
		name, _ := at(d, "interface").(string)
		was, err := number(at(d, "size"))
		if err != nil {
			continue
		}
		setting := difference{path: fmt.Sprintf("disk[%d].size", i)}.name(subject{machine: true})
		is, kept := after[name]
		switch {
		case !kept:
			refused = append(refused, fault.New(fault.Invalid, m.Name,
				"add it to extra_disks, or detach it in Proxmox", "disk %s (%v GiB) is not in its settings, and a plan never removes a disk", name, was))
		case is < was:
			refused = append(refused, fault.New(fault.Invalid, m.Name,
				fmt.Sprintf("%s: %v", setting, was), "%s %v → %v: a disk cannot shrink", setting, was, is))
		}
	}
	return refused
}

func number(v any) (float64, error) {
	var f float64
	_, err := fmt.Sscan(fmt.Sprint(v), &f)
	return f, err
}
