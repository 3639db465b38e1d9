package op

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/fleet"
	"github.com/k3lab/k3lab/internal/remote"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

const (
	// bootAsked is the time between two attempts to reach a machine that boots.
	bootAsked = time.Second
	// bootAnswer is how long one attempt may take: a link to a machine that is
	// gone says nothing.
	bootAnswer = 15 * time.Second
)

// Apply updates agents first, so that what is wrong with new packages shows where
// no datastore is, then servers one by one. It ends with the first failure.
func (u *update) Apply(ctx context.Context, w step.Writer, changes []step.Change) error {
	planned := byObject(changes)
	var agents, servers []*config.Machine
	for _, m := range u.nodes {
		switch {
		case planned[m.Name] == nil:
		case m.Role == config.RoleServer:
			servers = append(servers, m)
		default:
			agents = append(agents, m)
		}
	}
	roll := slices.Collect(slices.Chunk(agents, u.opts.AtOnce))
	for batch := range slices.Chunk(servers, 1) {
		roll = append(roll, batch)
	}
	for _, batch := range roll {
		err := fleet.Each(ctx, batch, func(ctx context.Context, m *config.Machine) error {
			return u.machine(ctx, w, m, planned[m.Name])
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// machine updates one machine. A failure says what is left behind.
func (u *update) machine(ctx context.Context, w step.Writer, m *config.Machine, planned []step.Change) error {
	err := fleet.Named(m.Name, u.walk(ctx, w, m, planned))
	if err == nil {
		u.say(w, m, "is up to date", true)
		return nil
	}
	kept := ""
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), planPatience)
	defer cancel()
	if api, apiErr := u.api(ctx); apiErr == nil {
		if cordoned, by, cordonErr := api.Cordoned(ctx, m.Name); cordonErr == nil && cordoned && by == updateName {
			kept = m.Name + " stays cordoned. "
		}
	}
	return fault.New(fault.KindOf(err), "", "", "%w\n%sNo other machine is updated: when that is mended, k3lab os update goes on from here", err, kept)
}

func (u *update) walk(ctx context.Context, w step.Writer, m *config.Machine, planned []step.Change) error {
	if err := u.safe(ctx, m); err != nil {
		return err
	}
	for _, c := range planned {
		if c.Resource != packagesID {
			continue
		}
		u.say(w, m, "installing packages", false)
		q := newerPackages(m)
		q.Only = []string{packagesID}
		if _, err := u.machines.Apply(ctx, w, m.Name, q); err != nil {
			return err
		}
		u.done(c)
	}
	facts, err := u.machines.Facts(ctx, m.Name, converger.FactsRequest{Reboot: true})
	if err != nil {
		return err
	}
	boot := ""
	if facts.Reboot != "" {
		if boot, err = u.reboot(ctx, w, m, facts); err != nil {
			return err
		}
	}
	// Packages restart services, and an update before may have ended in between.
	u.say(w, m, "waiting for the node to be whole", false)
	if err := u.whole(ctx, m.Name, boot); err != nil {
		return err
	}
	api, err := u.api(ctx)
	if err != nil {
		return err
	}
	if err := api.Uncordon(ctx, w, m.Name); err != nil {
		return err
	}
	for _, c := range planned {
		if c.Resource == nodeID {
			u.done(c)
		}
	}
	return nil
}

// reboot takes the pods off the node, boots the machine anew and returns the ID of
// that boot.
func (u *update) reboot(ctx context.Context, w step.Writer, m *config.Machine, facts converger.Facts) (string, error) {
	api, err := u.api(ctx)
	if err != nil {
		return "", err
	}
	elsewhere, err := api.Elsewhere(ctx, m.Name)
	if err != nil {
		return "", err
	}
	if elsewhere { // else its pods could go nowhere, and start again with it
		if err := api.Cordon(ctx, w, m.Name, updateName); err != nil {
			return "", err
		}
		u.say(w, m, "draining", false)
		if err := api.Drain(ctx, w, m.Name, u.opts.Drain); err != nil {
			return "", err
		}
	}
	// All of that may have taken its time.
	if err := u.safe(ctx, m); err != nil {
		return "", err
	}
	u.say(w, m, "rebooting: "+facts.Reboot, false)
	_, err = u.machines.Output(ctx, m.Name, "systemctl", "--no-block", "reboot")
	if err != nil && !errors.Is(err, remote.ErrLost) {
		return "", err
	}
	boot, err := u.booted(ctx, m, facts.BootID)
	if err != nil {
		return "", err
	}
	u.done(step.Change{Layer: "platform", Object: m.Name, Resource: machineID, Action: step.Restart, Detail: facts.Reboot})
	w.Report(report.Event{Kind: report.ChangeMade, Object: m.Name, Message: "restart machine (" + facts.Reboot + ")"})
	return boot, nil
}

// booted waits until the machine answers that it has booted anew.
func (u *update) booted(ctx context.Context, m *config.Machine, before string) (string, error) {
	within, cancel := context.WithTimeout(ctx, u.opts.Timeout)
	defer cancel()
	again := time.NewTicker(bootAsked)
	defer again.Stop()
	for {
		attempt, cancel := context.WithTimeout(within, bootAnswer)
		facts, err := u.machines.Facts(attempt, m.Name, converger.FactsRequest{})
		cancel()
		if err == nil && facts.BootID != before {
			return facts.BootID, nil
		}
		select {
		case <-within.Done():
			if ctx.Err() != nil {
				return "", ctx.Err()
			}
			if err == nil {
				return "", fault.New(fault.Failed, m.Name, "k3lab ssh "+m.Name+" -- systemctl list-jobs", "has not rebooted within %s", u.opts.Timeout)
			}
			return "", fault.New(fault.Unreachable, m.Name, "look at its console", "has not come back within %s of its reboot: %w", u.opts.Timeout, err)
		case <-again.C:
		}
	}
}

// safe refuses to take a machine away that others would miss: of the servers all
// others must vote.
func (u *update) safe(ctx context.Context, m *config.Machine) error {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	h := u.look(ctx)
	if h.API != "ok" {
		return fault.New(fault.Unhealthy, m.Name, "k3lab status", "is not touched while the API does not answer: %s", h.API)
	}
	if m.Role != config.RoleServer {
		if !h.Quorum() {
			return fault.New(fault.Unhealthy, m.Name, "k3lab status", "is not touched while the datastore has no quorum: %d of %d servers vote", h.Voters, h.Servers)
		}
		return nil
	}
	for i := range h.Members {
		other := &h.Members[i]
		if other.Name != m.Name && other.Datastore != nil && !other.Datastore.Voter() {
			return fault.New(fault.Unhealthy, m.Name, "k3lab status", "is not touched while another server does not vote: %s (%s)", other.Name, other.Problem())
		}
	}
	return nil
}

func (u *update) done(c step.Change) {
	c.Deferred = ""
	u.mu.Lock()
	defer u.mu.Unlock()
	u.made = append(u.made, c)
}

func (u *update) say(w step.Writer, m *config.Machine, state string, done bool) {
	w.Report(report.Event{Kind: report.ObjectState, Object: m.Name, Message: state, Done: done})
}
