package converger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// lockWait is how long another program may hold the package manager's lock.
const lockWait = 3 * time.Minute

func (v *view) planPackage(p *Package) ([]action, error) {
	if v.packagesErr != nil {
		return nil, v.packagesErr
	}
	status := v.packages[p.Name]
	if strings.HasSuffix(status, "i") && len(status) == 2 { // ii, hi: wanted or held, and installed
		return nil, nil
	}
	change := Change{Action: "install"}
	if len(status) == 2 && !strings.HasSuffix(status, "n") && !strings.HasSuffix(status, "c") {
		change.Detail = "an earlier installation did not end"
	}
	return one(change, func(ctx context.Context, w *writer) error {
		// All at once: the package manager takes long to start.
		return w.once("packages", func() error { return w.installPackages(ctx) })
	}), nil
}

func (w *writer) installPackages(ctx context.Context) error {
	var names []string
	broken := false
	for _, r := range w.view.state.Resources {
		if r.Package != nil && w.selected[r.ID()] {
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
			return packageError(err)
		}
	}
	updated := false
	if !w.view.packageListsThere() {
		if err := w.updateLists(ctx); err != nil {
			return err
		}
		updated = true
	}
	err := w.aptInstall(ctx, names)
	if err != nil && !updated && outdated.MatchString(err.Error()) {
		if err := w.updateLists(ctx); err != nil {
			return err
		}
		err = w.aptInstall(ctx, names)
	}
	return packageError(err)
}

var (
	packageEnv = []string{"DEBIAN_FRONTEND=noninteractive", "APT_LISTCHANGES_FRONTEND=none", "NEEDRESTART_SUSPEND=1"}
	// outdated is what apt-get says when its lists are older than the mirror.
	outdated = regexp.MustCompile(`Unable to locate package|has no installation candidate|404 +Not Found`)
	lockHeld = regexp.MustCompile(`Could not get lock|Unable to (acquire|lock)|is another process using it`)
	holder   = regexp.MustCompile(`held by process ([0-9]+)( \([^)]*\))?`)
)

func (w *writer) aptInstall(ctx context.Context, names []string) error {
	args := append([]string{"apt-get", "install", "--yes", "--quiet", "--no-install-recommends",
		fmt.Sprintf("--option=DPkg::Lock::Timeout=%d", int(lockWait.Seconds())),
		"--option=Dpkg::Options::=--force-confdef", "--option=Dpkg::Options::=--force-confold", "--"}, names...)
	_, err := w.programs.run(ctx, packageEnv, args...)
	return err
}

// updateLists waits itself while another program updates them: apt-get waits for
// the lock of installations only.
func (w *writer) updateLists(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	again := time.NewTicker(2 * time.Second)
	defer again.Stop()
	for {
		_, err := w.programs.run(ctx, packageEnv, "apt-get", "update", "--quiet", "--option=APT::Update::Error-Mode=any")
		if err == nil || !lockHeld.MatchString(err.Error()) {
			return packageError(err)
		}
		select {
		case <-ctx.Done():
			return packageError(err)
		case <-again.C:
		}
	}
}

func packageError(err error) error {
	if err == nil || !lockHeld.MatchString(err.Error()) {
		return err
	}
	by := "another process"
	if m := holder.FindStringSubmatch(err.Error()); m != nil {
		by = "process " + m[1] + m[2]
	}
	return errors.Join(fmt.Errorf("the package manager is held by %s, still after %s", by, lockWait), err)
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
