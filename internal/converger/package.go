package converger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

func (v *view) planPackage(p *Package) ([]action, error) {
	if v.packagesErr != nil {
		return nil, v.packagesErr
	}
	status := v.packages[p.Name]
	if p.Absent {
		return v.planNoPackage(p, status), nil
	}
	if strings.HasSuffix(status, "i") && len(status) == 2 { // ii, hi: wanted or held, and installed
		return nil, nil
	}
	change := Change{Action: "install"}
	if len(status) == 2 && !strings.HasSuffix(status, "n") && !strings.HasSuffix(status, "c") {
		change.Detail = "an earlier installation did not end"
	}
	return one(change, func(ctx context.Context, w *writer) error {
		// All at once: the package manager takes long to start.
		err := w.once("packages", func() error { return w.installPackages(ctx) })
		return cmp.Or(w.refused[p.Name], err)
	}), nil
}

// planNoPackage removes a package. dpkg refuses where another one needs it;
// apt-get would remove both.
func (v *view) planNoPackage(p *Package, status string) []action {
	if status == "" || strings.HasSuffix(status, "n") {
		return nil
	}
	return one(Change{Action: "delete"}, func(ctx context.Context, w *writer) error {
		if err := w.awaitPackageManager(ctx); err != nil {
			return err
		}
		w.reloadFirst = true // its units go
		_, err := w.programs.run(ctx, packageEnv, "dpkg", "--purge", "--", p.Name)
		return w.packageError(err)
	})
}

func (w *writer) installPackages(ctx context.Context) error {
	if err := w.awaitPackageManager(ctx); err != nil {
		return err
	}
	var names []string
	broken := false
	for _, r := range w.view.state.Resources {
		if r.Package != nil && !r.Package.Absent && w.selected[r.ID()] {
			names = append(names, r.Package.Name)
		}
	}
	for _, status := range w.view.packages {
		broken = broken || len(status) == 2 && strings.ContainsAny(status[1:], "UFHWt")
	}
	if updates, err := filepath.Glob(w.view.at("/var/lib/dpkg/updates/[0-9]*")); err == nil && len(updates) > 0 {
		broken = true
	}
	w.reloadFirst = true // packages bring units
	if broken {
		if _, err := w.programs.run(ctx, packageEnv, "dpkg", "--configure", "-a"); err != nil {
			return w.packageError(err)
		}
	}
	return w.packageError(w.installAvailable(ctx, names))
}

// installAvailable installs all that can be had: one name that is wrong is no reason to
// leave the others out.
func (w *writer) installAvailable(ctx context.Context, names []string) error {
	var listsErr error
	updated := false
	if !w.view.packageListsThere() {
		listsErr, updated = updateLists(ctx, w.programs, w.lockWait), true
	}
	for len(names) > 0 {
		err := w.aptInstall(ctx, names)
		if err == nil || !outdated.MatchString(err.Error()) {
			return err
		}
		if !updated {
			listsErr, updated = updateLists(ctx, w.programs, w.lockWait), true
			continue
		}
		rest := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			if !isRefused(err.Error(), name) {
				return false
			}
			w.refused[name] = refusal(listsErr)
			return true
		})
		if len(rest) == len(names) {
			return errors.Join(err, listsErr)
		}
		names = rest
	}
	return nil
}

func refusal(listsErr error) error {
	err := errors.New("apt knows no such package: correct the name in os.packages, or add the archive that has it")
	if listsErr != nil {
		err = fmt.Errorf("apt has no such package, and its lists could not be updated: %w", listsErr)
	}
	return err
}

var (
	packageEnv = []string{"DEBIAN_FRONTEND=noninteractive", "APT_LISTCHANGES_FRONTEND=none", "NEEDRESTART_SUSPEND=1"}
	// outdated is what apt-get says when its lists are older than the mirror.
	outdated = regexp.MustCompile(`Unable to locate package|Couldn't find any package|has no installation candidate|404 +Not Found`)
	lockHeld = regexp.MustCompile(`Could not get lock|Unable to (acquire|lock)|is another process using it`)
	holder   = regexp.MustCompile(`held by process ([0-9]+)( \([^)]*\))?`)
)

// isRefused reports whether apt-get says that it cannot have this package.
func isRefused(said, name string) bool {
	name = regexp.QuoteMeta(name)
	return regexp.MustCompile(`(?m)(Unable to locate package ` + name + `$|Couldn't find any package by \w+ '` + name + `'|Package '` + name + `' has no installation candidate)`).MatchString(said)
}

func (w *writer) aptInstall(ctx context.Context, names []string) error {
	args := slices.Concat([]string{"apt-get", "install", "--yes", "--quiet", "--no-install-recommends"}, w.unattended(), []string{"--"}, names)
	_, err := w.programs.run(ctx, packageEnv, args...)
	return err
}

// unattended has apt-get keep files of the configuration that were edited, and
// wait for the lock of installations.
func (w *writer) unattended() []string {
	return []string{fmt.Sprintf("--option=DPkg::Lock::Timeout=%d", int(w.lockWait.Seconds())),
		"--option=Dpkg::Options::=--force-confdef", "--option=Dpkg::Options::=--force-confold"}
}

// updateLists waits itself while another program updates them: apt-get waits for
// the lock of installations only.
func updateLists(ctx context.Context, p programs, wait time.Duration, options ...string) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	again := time.NewTicker(2 * time.Second)
	defer again.Stop()
	for {
		args := append([]string{"apt-get", "update", "--quiet", "--option=APT::Update::Error-Mode=any"}, options...)
		_, err := p.run(ctx, packageEnv, args...)
		if err == nil || !lockHeld.MatchString(err.Error()) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-again.C:
		}
	}
}

// packageError says who took the package manager after it was waited for.
func (w *writer) packageError(err error) error {
	if err == nil || !lockHeld.MatchString(err.Error()) {
		return err
	}
	by := "another process"
	if m := holder.FindStringSubmatch(err.Error()); m != nil {
		by = "process " + m[1] + m[2]
	}
	return errors.Join(heldTooLong(by, w.lockWait), err)
}

func (v *view) packageListsThere() bool {
	entries, err := os.ReadDir(v.at("/var/lib/apt/lists"))
	if err != nil {
		return false
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), "_Packages") {
			return true
		}
	}
	return false
}
