package op

import (
	"fmt"
	"strings"
	"sync"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// namedMachines is how many machines a notice names.
const namedMachines = 5

// notices are what machines tell beside changes: settings that belong to the
// computer, keys somebody put there by hand. Each is told once in an operation.
type notices struct {
	mu   sync.Mutex
	told map[string]bool // machine and text
}

// plan tells what the machines' plans hold, once for all that say the same. The
// lists are in the machines' order.
func (n *notices) plan(r report.Reporter, machines []*config.Machine, found [][]converger.Change) {
	var order []string
	who := map[string][]string{}
	for i, changes := range found {
		for _, c := range changes {
			if c.Notice == "" {
				continue
			}
			text := c.Resource + ": " + c.Notice
			if who[text] == nil {
				order = append(order, text)
			}
			who[text] = append(who[text], machines[i].Name)
			n.first(machines[i].Name, text)
		}
	}
	for _, text := range order {
		r.Report(report.Event{Kind: report.Notice, Object: together(who[text]), Message: text})
	}
}

func together(machines []string) string {
	if more := len(machines) - namedMachines; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(machines[:namedMachines], ", "), more)
	}
	return strings.Join(machines, ", ")
}

// first reports whether the machine has not told this yet.
func (n *notices) first(machine, text string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := machine + " " + text
	if n.told == nil {
		n.told = map[string]bool{}
	}
	known := n.told[key]
	n.told[key] = true
	return !known
}

// noticing passes on everything but notices that were told.
type noticing struct {
	step.Writer
	notices *notices
}

func (w noticing) Report(e report.Event) {
	if e.Kind != report.Notice || w.notices.first(e.Object, e.Message) {
		w.Writer.Report(e)
	}
}
