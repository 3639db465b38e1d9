package op

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/desired"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/fleet"
	"github.com/k3lab/k3lab/internal/remote"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// rollout is one application of the converge step. Each machine goes its own
// way; four things bind them together:
//
//   - A new cluster is begun by one server, once all servers were asked whether
//     they hold one already (facts).
//   - The server that begins it is made ready first (ready).
//   - The other servers start when that one is up (started): earlier they fail
//     their first attempt and lose a restart. Agents wait by themselves.
//   - Servers that run are restarted one at a time (restarts), the next one when
//     the one before is whole again, so that the datastore keeps its quorum.
type rollout struct {
	*converge
	w        step.Writer
	planned  map[string][]step.Change
	facts    *board
	ready    *signal
	started  *signal
	restarts sync.Mutex
}

func (r *rollout) machine(ctx context.Context, m *config.Machine) error {
	err := r.walk(ctx, m)
	if m == r.lab.Servers()[0] {
		// Whether it began the cluster or had nothing to do: nobody waits any longer.
		r.ready.set(err)
		r.started.set(err)
	}
	return err
}

// giveWay lets the server that begins a new cluster have the link and this
// computer for itself until its K3s starts: everyone else waits for that later,
// and copies meanwhile.
func (r *rollout) giveWay(ctx context.Context, m *config.Machine) {
	if m == r.lab.Servers()[0] || r.beginning().member != "" {
		return
	}
	// Whether that worked is for that server to say.
	_ = r.ready.wait(ctx)
}

func (r *rollout) walk(ctx context.Context, m *config.Machine) error {
	changes := r.planned[m.Name]
	facts, err := r.reach(ctx, m)
	r.facts.post(m.Name, facts, err)
	if err != nil {
		return err
	}
	if len(changes) == 0 {
		r.say(m, "no changes", true)
		return nil
	}
	if installs(changes, "binary ") || installs(changes, "archive ") {
		r.giveWay(ctx, m)
		if err := r.push(ctx, m, changes); err != nil {
			return err
		}
	}
	if !r.lab.Manages(config.ManageK3s) {
		return r.withoutK3s(ctx, m, changes, facts)
	}
	start, err := r.begin(ctx, m)
	if err != nil {
		return err
	}
	state, err := r.desired(ctx, m, facts, start)
	if err != nil {
		return err
	}
	if err := r.pushImages(ctx, m, changes, state); err != nil {
		return err
	}
	if err := r.forget(ctx, m, facts); err != nil {
		return err
	}
	err = r.apply(ctx, m, converger.Request{State: state, Only: only(changes)}, facts, start)
	if err == nil {
		r.say(m, "converged, K3s started", true)
	}
	return err
}

// forget has the cluster let go of the machine's name, where a lost one had it.
func (r *rollout) forget(ctx context.Context, m *config.Machine, facts converger.Facts) error {
	lost, err := r.replaced(ctx, m, facts, r.beginning())
	if err != nil || lost == nil {
		return err
	}
	r.say(m, "waiting for the cluster to forget the machine that was lost", false)
	ctx, cancel := context.WithTimeout(ctx, forgetPatience)
	defer cancel()
	return lost.Forget(ctx, r.w, m.Name)
}

// withoutK3s converges a machine whose K3s k3lab leaves as it is: nobody has to
// wait for anybody.
func (r *rollout) withoutK3s(ctx context.Context, m *config.Machine, changes []step.Change, facts converger.Facts) error {
	state, err := r.desired(ctx, m, facts, beginning{})
	if err != nil {
		return err
	}
	r.say(m, "converging", false)
	if _, err := r.machines.Apply(ctx, r.w, m.Name, converger.Request{State: state, Only: only(changes)}); err != nil {
		return err
	}
	r.say(m, "converged", true)
	return nil
}

// reach waits until the machine answers, as long as a boot may take.
func (r *rollout) reach(ctx context.Context, m *config.Machine) (converger.Facts, error) {
	if facts, known := r.seen[m.Name]; known {
		return facts, nil
	}
	r.say(m, "waiting for it to answer SSH", false)
	within, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	facts, err := r.machines.Facts(within, m.Name, r.factsWanted(m))
	if err != nil && within.Err() != nil && ctx.Err() == nil && !errors.Is(err, remote.ErrNoAnswer) {
		// It answered and then fell silent: a link that is cut says nothing.
		err = fault.New(fault.Unreachable, m.Name, "k3lab status", "%w", remote.ErrNoAnswer)
	}
	return facts, err
}

// push copies what the changes install to the machine.
func (r *rollout) push(ctx context.Context, m *config.Machine, changes []step.Change) error {
	if installs(changes, "binary ") {
		binary, err := r.supplies.binary(ctx, m.Arch)
		if err != nil {
			return err
		}
		r.say(m, "copying K3s "+r.lab.K3s.Version, false)
		if err := r.machines.Push(ctx, r.w, m.Name, fleet.Cached(binary.Path, binary.SHA256)); err != nil {
			return err
		}
	}
	return nil
}

// pushImages copies the archives of images that the changes install.
func (r *rollout) pushImages(ctx context.Context, m *config.Machine, changes []step.Change, state converger.State) error {
	for _, res := range state.Resources {
		if res.Archive == nil || !installs(changes, res.ID()) {
			continue
		}
		a, err := r.supplies.archive(ctx, r.lab, m.Arch, res.Archive)
		if err != nil {
			return err
		}
		r.say(m, "copying "+filepath.Base(a.From), false)
		if err := r.machines.Push(ctx, r.w, m.Name, a); err != nil {
			return err
		}
	}
	return nil
}

// begin waits, for a server, until all servers were asked. An agent takes any that
// is known.
func (r *rollout) begin(ctx context.Context, m *config.Machine) (beginning, error) {
	if m.Role != config.RoleServer {
		return r.beginning(), nil
	}
	seen, err := r.facts.wait(ctx)
	if err != nil {
		return beginning{}, err
	}
	b := begin(r.lab.Servers(), seen)
	if b.unknown != "" && !hasDatastore(seen[m.Name]) {
		return b, fmt.Errorf("K3s was not started: %s", b.unknown)
	}
	return b, nil
}

func (r *rollout) apply(ctx context.Context, m *config.Machine, req converger.Request, facts converger.Facts, start beginning) error {
	unit := desired.Unit(m)
	up := facts.Units[unit].Active == "active"
	joins := m.Role == config.RoleServer && start.bootstrap != "" && start.bootstrap != m.Name
	if up && m.Role == config.RoleServer && restarts(r.planned[m.Name], unit) {
		r.restarts.Lock()
		defer r.restarts.Unlock()
		r.say(m, "restarting K3s", false)
		if _, err := r.machines.Apply(ctx, r.w, m.Name, req); err != nil {
			return err
		}
		return r.healthy(ctx, m.Name)
	}
	if joins || start.bootstrap == m.Name {
		r.say(m, "converging", false)
		first := req
		first.Hold = []string{"unit " + unit}
		if _, err := r.machines.Apply(ctx, r.w, m.Name, first); err != nil {
			return err
		}
	}
	if start.bootstrap == m.Name {
		r.ready.set(nil)
	}
	if joins {
		r.say(m, "waiting for "+start.bootstrap+" to begin the cluster", false)
		if err := r.started.wait(ctx); err != nil {
			return fmt.Errorf("K3s was not started: %s did not begin the cluster", start.bootstrap)
		}
	}
	r.say(m, "starting K3s", false)
	_, err := r.machines.Apply(ctx, r.w, m.Name, req)
	return err
}

func (r *rollout) say(m *config.Machine, state string, done bool) {
	r.w.Report(report.Event{Kind: report.ObjectState, Object: m.Name, Message: state, Done: done})
}

// only names the planned changes, so that no other is made. Where something was
// deferred everything is looked at anew, and the list is empty.
func only(changes []step.Change) []string {
	var ids []string
	for _, c := range changes {
		if c.Deferred != "" {
			return nil
		}
		if c.Resource != nodeID { // the cluster's, not the machine's
			ids = append(ids, c.Resource)
		}
	}
	return ids
}

// installs reports whether something whose ID begins so is installed, or may have
// to be.
func installs(changes []step.Change, id string) bool {
	for _, c := range changes {
		if c.Deferred != "" || strings.HasPrefix(c.Resource, id) {
			return true
		}
	}
	return false
}

func restarts(changes []step.Change, unit string) bool {
	for _, c := range changes {
		if c.Action == step.Restart && strings.Contains(c.Resource, unit) {
			return true
		}
	}
	return false
}

// board collects the facts of the servers until all are there.
type board struct {
	mu      sync.Mutex
	waiting map[string]bool
	facts   map[string]converger.Facts
	full    chan struct{}
}

func newBoard(servers []*config.Machine) *board {
	b := &board{waiting: map[string]bool{}, facts: map[string]converger.Facts{}, full: make(chan struct{})}
	for _, s := range servers {
		b.waiting[s.Name] = true
	}
	return b
}

// post puts a machine's facts up; with an error it only says that no more will come.
func (b *board) post(machine string, f converger.Facts, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.waiting[machine] {
		return
	}
	delete(b.waiting, machine)
	if err == nil {
		b.facts[machine] = f
	}
	if len(b.waiting) == 0 {
		close(b.full)
	}
}

func (b *board) wait(ctx context.Context) (map[string]converger.Facts, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-b.full:
		return b.facts, nil
	}
}

// signal happens once, with or without an error.
type signal struct {
	once sync.Once
	done chan struct{}
	err  error
}

func newSignal() *signal { return &signal{done: make(chan struct{})} }

func (s *signal) set(err error) {
	s.once.Do(func() {
		s.err = err
		close(s.done)
	})
}

func (s *signal) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return s.err
	}
}
