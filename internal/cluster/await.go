package cluster

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
)

// Await waits until the cluster is whole, reporting each member's state as it
// changes. It gives up when the context ends, and early when K3s on a machine
// has been started again and again, because that does not mend itself. The
// error then names each machine with the last lines of its journal.
type Await struct {
	Observer *Observer
	// Fetch is asked for the kubeconfig as long as the observer has none.
	Fetch func(ctx context.Context) ([]byte, error)
	// Accept drops problems that are expected, as nodes without a network plugin
	// are with cni: none.
	Accept func(*Member) bool
	// Also says what else keeps a member from being whole; empty when nothing
	// does. May be nil.
	Also func(*Member) string
	// Finally looks, where all members are whole, at what else the cluster must be:
	// what is still waited for, or the error to give up with. May be nil.
	Finally func(*Health) (waiting string, err error)
	// Interval between two looks; everything is read anew each time.
	Interval time.Duration
	// MaxRestarts by systemd of one unit, counted from the first look on.
	MaxRestarts int
}

// Run waits. The health it returns is the last one seen, also with an error.
func (a *Await) Run(ctx context.Context, r report.Reporter) (*Health, error) {
	tick := time.NewTicker(a.Interval)
	defer tick.Stop()
	first := map[string]int{}
	said := map[string]string{}
	for {
		if len(a.Observer.Kubeconfig) == 0 {
			// Not there yet is what is waited for; the health says so.
			if k, err := a.Fetch(ctx); err == nil {
				a.Observer.Kubeconfig = k
			}
		}
		h := a.Observer.Look(ctx)
		open := a.open(h)
		say(r, h, open, said)
		if len(open) == 0 && h.API == "ok" && ctx.Err() == nil {
			waiting, err := a.finally(h)
			if waiting == "" || err != nil {
				return h, err
			}
			if said[""] != waiting {
				said[""] = waiting
				r.Report(report.Event{Kind: report.ObjectState, Object: "api", Message: waiting})
			}
		}
		if name := a.restarting(h, first); name != "" {
			return h, a.failure(ctx, h, open, errors.New("K3s does not stay up on "+name))
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return h, ctx.Err()
			}
			return h, a.failure(context.WithoutCancel(ctx), h, open, errors.New("the cluster is not whole in time"))
		case <-tick.C:
		}
	}
}

func (a *Await) finally(h *Health) (waiting string, err error) {
	if a.Finally == nil {
		return "", nil
	}
	return a.Finally(h)
}

// open maps each member that is not whole to its problem.
func (a *Await) open(h *Health) map[string]string {
	open := map[string]string{}
	for i := range h.Members {
		m := &h.Members[i]
		p := m.Problem()
		if p != "" && a.Accept != nil && a.Accept(m) {
			p = ""
		}
		if p == "" && a.Also != nil {
			p = a.Also(m)
		}
		if p != "" {
			open[m.Name] = p
		}
	}
	return open
}

func say(r report.Reporter, h *Health, open, said map[string]string) {
	for i := range h.Members {
		m := &h.Members[i]
		state, bad := open[m.Name]
		if !bad {
			state = "ready"
		}
		if said[m.Name] == state {
			continue
		}
		said[m.Name] = state
		r.Report(report.Event{Kind: report.ObjectState, Object: m.Name, Message: state, Done: !bad})
	}
}

func (a *Await) restarting(h *Health, first map[string]int) string {
	for i := range h.Members {
		m := &h.Members[i]
		if !m.Reachable {
			continue
		}
		if _, seen := first[m.Name]; !seen {
			first[m.Name] = m.Unit.Restarts
		}
		if m.Unit.Restarts-first[m.Name] >= a.MaxRestarts {
			return m.Name
		}
	}
	return ""
}

func (a *Await) failure(ctx context.Context, h *Health, open map[string]string, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	errs := []error{cause}
	for i := range h.Members {
		m := &h.Members[i]
		problem, bad := open[m.Name]
		if !bad {
			continue
		}
		if m.Reachable {
			machine := a.Observer.Lab.Machine(m.Name)
			if lines, err := a.Observer.Machines.Journal(ctx, m.Name, a.Observer.Unit(machine), 8); err == nil && lines != "" {
				problem += "; its journal ends with\n    " + strings.ReplaceAll(strings.TrimSpace(lines), "\n", "\n    ")
			}
		}
		errs = append(errs, fault.New(fault.Unhealthy, m.Name, "k3lab ssh "+m.Name+" -- journalctl -u k3s -n 100", "%s", problem))
	}
	if len(open) == 0 && h.API == "ok" && h.VIP != nil && h.VIP.Problem != "" {
		errs = append(errs, fault.New(fault.Unhealthy, "", "k3lab status", "%s", h.VIP))
	}
	if h.API != "ok" && len(open) == 0 {
		errs = append(errs, fault.New(fault.Unhealthy, "api", "k3lab status", "%s", h.API))
	}
	return errors.Join(errs...)
}
