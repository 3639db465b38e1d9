package converger

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// upgradeLists are the package lists that upgrades are planned and made from: of
// our own, so that a plan touches nothing of the machine's and what is made is
// what was planned. Where others may enter: apt reads from archives as a user of
// its own.
const upgradeLists = "/var/cache/k3lab/apt-lists"

// upgradeOptions have apt-get use them. Its cache is of the machine's own lists.
var upgradeOptions = []string{
	"--option=Dir::State::lists=" + upgradeLists, "--option=Dir::Cache::pkgcache=", "--option=Dir::Cache::srcpkgcache=",
}

// upgrade is one package that would be another one, come or go.
type upgrade struct{ name, from, to string } // from is empty: new; to is empty: removed

// upgrades is what the archives have that is newer than what is installed.
type upgrades struct {
	packages []upgrade
	broken   []string // whose earlier installation did not end
}

var (
	aptInst = regexp.MustCompile(`^Inst (\S+)(?: \[([^\]]*)\])? \((\S+)`)
	aptRemv = regexp.MustCompile(`^Remv (\S+)(?: \[([^\]]*)\])?`)
	aptConf = regexp.MustCompile(`^Conf (\S+) `)
)

// upgrades asks the archives for what is new, and then apt what it would do.
func (q queries) upgrades(ctx context.Context, v *view, wait time.Duration) (upgrades, error) {
	if err := os.MkdirAll(v.at(upgradeLists), 0o755); err != nil {
		return upgrades{}, err
	}
	if err := updateLists(ctx, q.programs, wait, upgradeOptions...); err != nil {
		return upgrades{}, err
	}
	args := append([]string{"apt-get", "--simulate", "--quiet", "dist-upgrade"}, upgradeOptions...)
	out, err := q.programs.run(ctx, packageEnv, args...)
	if err != nil {
		return upgrades{}, err
	}
	u := parseUpgrades(string(out))
	if left, err := filepath.Glob(v.at("/var/lib/dpkg/updates/[0-9]*")); err == nil && len(left) > 0 && u.broken == nil {
		u.broken = []string{"the package manager's own records"}
	}
	return u, nil
}

func parseUpgrades(text string) upgrades {
	var u upgrades
	installed := map[string]bool{}
	for line := range strings.Lines(text) {
		if m := aptInst.FindStringSubmatch(line); m != nil {
			u.packages = append(u.packages, upgrade{m[1], m[2], m[3]})
			installed[m[1]] = true
		} else if m := aptRemv.FindStringSubmatch(line); m != nil {
			u.packages = append(u.packages, upgrade{name: m[1], from: cmp.Or(m[2], "installed")})
		} else if m := aptConf.FindStringSubmatch(line); m != nil && !installed[m[1]] {
			u.broken = append(u.broken, m[1])
		}
	}
	slices.SortFunc(u.packages, func(a, b upgrade) int { return strings.Compare(a.name, b.name) })
	return u
}

func (v *view) planUpgrades() ([]action, error) {
	if v.upgradesErr != nil {
		return nil, v.upgradesErr
	}
	u := v.upgrades
	if len(u.packages) == 0 && u.broken == nil {
		return nil, nil
	}
	change := Change{Action: "update"}
	gone, fresh := 0, 0
	var before, after strings.Builder
	for _, p := range u.packages {
		if p.from == "" {
			fresh++
		} else {
			fmt.Fprintf(&before, "%s %s\n", p.name, p.from)
		}
		if p.to == "" {
			gone++
		} else {
			fmt.Fprintf(&after, "%s %s\n", p.name, p.to)
		}
	}
	change.Before, change.After = before.String(), after.String()
	change.Detail = summary(len(u.packages)-gone-fresh, fresh, gone, u.broken)
	return one(change, func(ctx context.Context, w *writer) error { return w.upgradePackages(ctx) }), nil
}

func summary(newer, fresh, gone int, broken []string) string {
	var parts []string
	for _, p := range []struct {
		n    int
		text string
	}{{newer, "to a newer version"}, {fresh, "more"}, {gone, "removed"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.text))
		}
	}
	if broken != nil {
		parts = append(parts, "to its end what an interruption has left of "+strings.Join(broken, ", "))
	}
	return strings.Join(parts, ", ")
}

func (w *writer) upgradePackages(ctx context.Context) error {
	if err := w.awaitPackageManager(ctx); err != nil {
		return err
	}
	w.reloadFirst = true // packages bring units
	if _, err := w.programs.run(ctx, packageEnv, "dpkg", "--configure", "-a", "--force-confdef", "--force-confold"); err != nil {
		return w.packageError(err)
	}
	args := slices.Concat([]string{"apt-get", "dist-upgrade", "--yes", "--quiet"}, w.unattended(), upgradeOptions)
	_, err := w.programs.run(ctx, packageEnv, args...)
	return w.packageError(err)
}
