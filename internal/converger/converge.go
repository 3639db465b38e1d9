package converger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrFailed is returned when at least one emitted change carries an error.
var ErrFailed = errors.New("not everything could be read or made")

// Converger converges the machine it runs on.
type Converger struct {
	root     string
	programs programs
	lockWait time.Duration // how long another program may hold the package manager
	ear      ear
}

// New returns a converger of the machine whose root directory is given; "/" is
// the machine itself.
func New(root string) *Converger {
	return &Converger{root: root, programs: system{}, lockWait: lockWait, ear: hear}
}

// action is one change and the way to make it. Notices and resources that could
// not be read have no way.
type action struct {
	Change
	make func(ctx context.Context, w *writer) error
	// needs are resources that must not have failed before this is made.
	needs []string
	// guarded: made under a guard, which puts replaces back and runs undo.
	guarded  bool
	replaces []string
	undo     []undo
}

// Plan emits what apply would change. It changes nothing.
func (c *Converger) Plan(ctx context.Context, q Request, emit func(Change)) error {
	if err := q.validate(); err != nil {
		return err
	}
	v := observe(c.root, c.programs, q.State)
	failed := false
	for _, a := range v.plan(ctx, q) {
		failed = failed || a.Error != ""
		emit(a.Change)
	}
	v.digests.save()
	if err := ctx.Err(); err != nil {
		return err
	}
	if failed {
		return ErrFailed
	}
	return nil
}

// Apply makes the changes Plan would emit, of those resources that q.Only names,
// and emits each when it is made. What fails is emitted with its error; what
// does not need it is made all the same.
func (c *Converger) Apply(ctx context.Context, q Request, emit func(Change)) error {
	if err := q.validate(); err != nil {
		return err
	}
	unlock, err := lock(ctx, c.root)
	if err != nil {
		return err
	}
	defer unlock()
	unlockGuard := func() {}
	if q.guarded() {
		if unlockGuard, err = lockGuard(ctx, c.root); err != nil {
			return err
		}
		defer unlockGuard()
	}
	v := observe(c.root, c.programs, q.State)
	actions := slices.DeleteFunc(v.plan(ctx, q), func(a action) bool {
		return a.make != nil && q.Only != nil && !slices.Contains(q.Only, a.Resource)
	})
	if err := ctx.Err(); err != nil {
		return err
	}
	w := newWriter(v, c.programs, actions)
	w.emit, w.lockWait = emit, c.lockWait
	listening, stop := context.WithCancel(ctx)
	defer stop()
	w.listen(listening, q, c.ear)
	return w.apply(ctx, actions, newGuarding(actions, unlockGuard), emit)
}

func (w *writer) apply(ctx context.Context, actions []action, g *guarding, emit func(Change)) error {
	w.cleanLeftovers()
	if err := w.recordPending(actions); err != nil {
		return err
	}
	failed := map[string]bool{}
	for i, a := range actions {
		if err := ctx.Err(); err != nil {
			return err
		}
		change := a.Change
		switch {
		case a.guarded && a.make != nil:
			change = w.guardedOne(ctx, g, a, actions, failed)
		case a.make != nil:
			change = w.one(ctx, a, failed)
		}
		if change.Error != "" {
			failed[a.Resource] = true
		}
		emit(change)
		if i == g.last && g.guard != nil {
			asked := w.endGuard(ctx, g)
			failed[guardID] = asked.Error != ""
			emit(asked)
		}
	}
	if err := w.finish(ctx); err != nil {
		return err
	}
	for _, f := range failed {
		if f {
			return ErrFailed
		}
	}
	return nil
}

func (w *writer) one(ctx context.Context, a action, failed map[string]bool) Change {
	change := a.Change
	for _, need := range append([]string{a.Resource}, a.needs...) {
		if failed[need] {
			change.Error = "not made, because " + need + " failed"
			return change
		}
	}
	err := a.make(ctx, w)
	var told *notice
	switch {
	case errors.As(err, &told):
		return Change{Resource: a.Resource, Notice: told.text}
	case err != nil:
		change.Error = err.Error()
	default:
		change.Made = true
	}
	return change
}

// notice is an outcome that is neither a change nor a failure.
type notice struct{ text string }

func (n *notice) Error() string { return n.text }

// plan returns what differs, in the order of the resources.
func (v *view) plan(ctx context.Context, q Request) []action {
	v.gather(ctx)
	var actions []action
	add := func(id string, more []action, err error) {
		if err != nil {
			more = append(more, action{Change: Change{Resource: id, Error: err.Error()}})
		}
		for i := range more {
			more[i].Resource = id
			if more[i].make != nil {
				v.planned[id] = true
			}
		}
		actions = append(actions, more...)
	}
	for _, r := range q.State.Resources {
		if ctx.Err() != nil {
			return actions
		}
		if slices.Contains(q.Hold, r.ID()) || v.unless(r.Unless) {
			continue
		}
		switch {
		case r.hasTag(q.Tags):
			more, err := v.planResource(r)
			if r.Guarded {
				v.markGuarded(r, more)
			}
			v.markLast(r, more)
			add(r.ID(), more, err)
		case len(q.Before) > 0 && r.hasTag(q.Before):
			// What cannot be read is told in its own turn.
			if more, err := v.planResource(r); err == nil && len(more) > 0 {
				v.planned[r.ID()] = true
			}
		}
	}
	if q.guarded() {
		more, err := v.planGuard()
		add(guardID, more, err)
	}
	if q.tends(func(r Resource) bool { return r.Sysctl != nil }) {
		for _, key := range v.unwantedSysctls() {
			add("sysctl "+key, v.dropSysctl(key), nil)
		}
	}
	if q.tends(func(r Resource) bool { return r.Module != nil }) {
		for _, name := range v.unwantedModules() {
			add("module "+name, v.dropModule(name), nil)
		}
	}
	return actions
}

func (v *view) planResource(r Resource) ([]action, error) {
	switch {
	case r.File != nil:
		return v.planFile(r.File)
	case r.Directory != nil:
		return v.planDirectory(r.Directory)
	case r.Absent != nil:
		return v.planAbsent(r.Absent)
	case r.Link != nil:
		return v.planLink(r.Link)
	case r.Binary != nil:
		return v.planBinary(r.Binary)
	case r.Sysctl != nil:
		return v.planSysctl(r.Sysctl)
	case r.Module != nil:
		return v.planModule(r.Module)
	case r.Swap != nil:
		return v.planSwap(r.Swap)
	case r.Hostname != nil:
		return v.planHostname(r.Hostname)
	case r.Package != nil:
		return v.planPackage(r.Package)
	case r.Unit != nil:
		return v.planUnit(r.Unit)
	case r.Block != nil:
		return v.planBlock(r.Block)
	case r.Keys != nil:
		return v.planAuthorizedKeys(r.Keys)
	case r.Clock != nil:
		return v.planClock()
	case r.Nftables != nil:
		return v.planNftables(r.Nftables)
	case r.Upgrades != nil:
		return v.planUpgrades()
	case r.Archive != nil:
		return v.planArchive(r.Archive)
	case r.Leftovers != nil:
		return v.planLeftovers(r.Leftovers)
	case r.Remains != nil:
		return v.planRemains(r.Remains)
	}
	return nil, fmt.Errorf("says nothing this converger knows")
}

// one is a plan of exactly one change.
func one(change Change, make func(ctx context.Context, w *writer) error) []action {
	return []action{{Change: change, make: make}}
}

func told(text string) []action { return []action{{Change: Change{Notice: text}}} }

// encode renders one of our own small files.
func encode(value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // our own types always marshal
	}
	return append(text, '\n')
}
