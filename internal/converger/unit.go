package converger

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// journalLines is how much of a unit's journal an error shows.
const journalLines = 15

// unitDirs are where systemd reads units; what is changed there it must be told.
var unitDirs = []string{
	"/etc/systemd/system/", "/run/systemd/system/", "/usr/local/lib/systemd/system/",
	"/usr/lib/systemd/system/", "/lib/systemd/system/",
}

func isUnitFile(p string) bool {
	return slices.ContainsFunc(unitDirs, func(dir string) bool { return strings.HasPrefix(p, dir) })
}

// noteUnitFile remembers that systemd must read its units again.
func (w *writer) noteUnitFile(p string) {
	if isUnitFile(p) {
		w.reloadFirst = true
	}
}

func (v *view) planUnit(u *Unit) ([]action, error) {
	if v.unitsErr != nil {
		return nil, v.unitsErr
	}
	is := v.units[u.Name]
	if (is.load == "" || is.load == "not-found") && !u.Masked && !v.unitPlanned(u.Name) {
		if !u.Enabled && !u.Running { // or as it is
			return nil, nil
		}
		return nil, errors.New("systemd knows no such unit")
	}
	p := unitPlan{view: v, unit: u, is: is}
	switch {
	case u.Masked:
		p.mask()
	case u.AsIs:
		p.use()
	default:
		p.enable()
		p.run()
	}
	return p.actions, nil
}

// unitPlanned reports whether the unit may come with what is planned.
func (v *view) unitPlanned(name string) bool {
	if v.packagesPlanned() {
		return true
	}
	template := name
	if at := strings.Index(name, "@"); at >= 0 {
		template = name[:at+1] + path.Ext(name)
	}
	for id := range v.planned {
		kind, p, _ := strings.Cut(id, " ")
		if (kind == "file" || kind == "link") && isUnitFile(p) && (path.Base(p) == name || path.Base(p) == template) {
			return true
		}
	}
	return false
}

type unitPlan struct {
	view    *view
	unit    *Unit
	is      unitState
	actions []action
}

func (p *unitPlan) add(verb, detail string, make func(ctx context.Context, w *writer) error) {
	needs := append(slices.Clone(p.unit.RestartOn), p.unit.ReloadOn...)
	p.actions = append(p.actions, action{Change: Change{Action: verb, Detail: detail}, make: make, needs: needs})
}

// up reports whether the unit runs or is being started.
func (u unitState) up() bool {
	return slices.Contains([]string{"active", "activating", "reloading", "refreshing"}, u.active)
}

func (p *unitPlan) mask() {
	if p.is.up() {
		p.add("stop", "", p.change("stop"))
	}
	if p.is.file != "masked" {
		p.add("update", "mask", p.unitFile("mask"))
	}
}

func (p *unitPlan) enable() {
	masked := p.is.file == "masked" || p.is.file == "masked-runtime"
	if masked {
		p.add("update", "unmask", p.unitFile("unmask"))
	}
	settled := slices.Contains([]string{"enabled", "static", "alias", "indirect", "generated", "transient"}, p.is.file)
	switch {
	case p.unit.Enabled && !settled:
		p.add("enable", "", p.unitFile("enable"))
	case !p.unit.Enabled && strings.HasPrefix(p.is.file, "enabled"):
		p.add("disable", "", p.unitFile("disable"))
	}
}

// use has what runs already use what changes.
func (p *unitPlan) use() {
	restart, reload := p.reason(p.unit.RestartOn, restartVerb), p.reason(p.unit.ReloadOn, reloadVerb)
	switch {
	case !p.is.up():
	case restart != "":
		p.add("restart", restart, p.change("restart"))
	case reload != "":
		p.add("reload", reload, p.change("reload"))
	}
}

func (p *unitPlan) run() {
	restart, reload := p.reason(p.unit.RestartOn, restartVerb), p.reason(p.unit.ReloadOn, reloadVerb)
	switch {
	case p.unit.Running && !p.is.up():
		detail := ""
		if p.is.active == "failed" {
			detail = "it has failed: " + p.is.result
		}
		// Restart, not start, where something changes: a package may have started it with the old.
		verb := "start"
		if restart != "" {
			verb = "restart"
		}
		p.add("start", detail, p.change(verb))
	case p.unit.Running && (restart != "" || reload != ""):
		p.use()
	case !p.unit.Running && p.is.up():
		p.add("stop", "", p.change("stop"))
	case p.is.stale && len(p.actions) == 0 && p.is.up():
		p.add("update", "systemd reads its unit file again", func(ctx context.Context, w *writer) error {
			w.reloadFirst = true
			return w.daemonReload(ctx)
		})
	}
}

// reason says why the unit must be restarted or reloaded, "" when it need not.
func (p *unitPlan) reason(triggers []string, verb string) string {
	for _, id := range triggers {
		if p.view.planned[id] && (verb != restartVerb || !p.view.runsAsDesired(p.unit)) {
			return "because " + id + " changes"
		}
	}
	if p.view.pending.Units[p.unit.Name] == verb {
		return "what changed in an earlier run that was interrupted is not in use yet"
	}
	return ""
}

// unitFile is the way to change what systemd does with the unit at boot.
func (p *unitPlan) unitFile(verb string) func(ctx context.Context, w *writer) error {
	name := p.unit.Name
	return func(ctx context.Context, w *writer) error {
		w.reloadLast = true
		return w.run(ctx, "systemctl", "--no-reload", "--quiet", verb, "--", name)
	}
}

// change is the way to start, stop, restart or reload the unit.
func (p *unitPlan) change(verb string) func(ctx context.Context, w *writer) error {
	u, failed := p.unit, p.is.active == "failed"
	return func(ctx context.Context, w *writer) error {
		if err := w.daemonReload(ctx); err != nil {
			return err
		}
		if failed && verb != "stop" {
			// Else systemd may refuse, because the unit was started too often.
			if err := w.run(ctx, "systemctl", "reset-failed", "--", u.Name); err != nil {
				return err
			}
		}
		args := []string{"systemctl"}
		if u.NoBlock {
			args = append(args, "--no-block")
		}
		if err := w.run(ctx, append(args, verb, "--", u.Name)...); err != nil {
			if ctx.Err() != nil {
				return err
			}
			return withJournal(err, w.view.queries.journal(ctx, u.Name, journalLines))
		}
		if verb == "start" || verb == "restart" {
			if err := w.noteStart(ctx, u); err != nil {
				return err
			}
		}
		return w.settled(u.Name)
	}
}

func withJournal(err error, journal string) error {
	if journal == "" {
		return err
	}
	return fmt.Errorf("%w\nits journal ends:\n  %s", err, strings.ReplaceAll(journal, "\n", "\n  "))
}

// daemonReload has systemd read its units where that is due.
func (w *writer) daemonReload(ctx context.Context) error {
	if !w.reloadFirst {
		return nil
	}
	if err := w.run(ctx, "systemctl", "daemon-reload"); err != nil {
		return err
	}
	w.reloadFirst, w.reloadLast = false, false
	return nil
}
