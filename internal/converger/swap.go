package converger

import (
	"context"
	"fmt"
	"os"
	"strings"
)

const (
	swapTarget = "swap.target"
	fstabPath  = "/etc/fstab"
)

// planSwap handles swap in its three places: what is on now, what fstab turns on
// at boot, and units that others bring (a partition found by itself, zram).
func (v *view) planSwap(s *Swap) ([]action, error) {
	if !s.Off {
		return nil, nil
	}
	if v.unitsErr != nil {
		return nil, v.unitsErr
	}
	var actions []action
	devices := v.swapDevices()
	switch {
	case len(devices) > 0 && v.container:
		actions = told("belongs to the computer: it has swap on " + strings.Join(devices, ", "))
	case len(devices) > 0:
		actions = one(Change{Action: "stop", Detail: "swap on " + strings.Join(devices, ", ")}, func(ctx context.Context, w *writer) error {
			for _, device := range devices {
				if err := w.run(ctx, "swapoff", "--", device); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if text, lines := withoutSwap(v.fstab()); lines > 0 {
		actions = append(actions, action{
			Change: Change{Action: "update", Detail: fmt.Sprintf("%s: %d swap lines become comments", fstabPath, lines)},
			make: func(_ context.Context, w *writer) error {
				w.reloadLast = true // systemd makes units of fstab
				return w.replace(fstabPath, strings.NewReader(text), attributes{mode: 0o644})
			},
		})
	}
	if v.swapUnits() && v.units[swapTarget].file != "masked" && !v.container {
		actions = append(actions, action{
			Change: Change{Action: "disable", Detail: "mask " + swapTarget + ", which starts swap units at boot"},
			make: func(ctx context.Context, w *writer) error {
				w.reloadLast = true
				return w.run(ctx, "systemctl", "--no-reload", "mask", "--", swapTarget)
			},
		})
	}
	return actions, nil
}

func (v *view) swapDevices() []string {
	var out []string
	for i, line := range v.lines("/proc/swaps") {
		if f := strings.Fields(line); i > 0 && len(f) > 0 {
			out = append(out, strings.TrimSuffix(f[0], `\040(deleted)`))
		}
	}
	return out
}

func (v *view) swapUnits() bool {
	for name, u := range v.units {
		if strings.HasSuffix(name, ".swap") && u.load == "loaded" {
			return true
		}
	}
	return false
}

func (v *view) fstab() string {
	text, err := os.ReadFile(v.at(fstabPath))
	if err != nil {
		return ""
	}
	return string(text)
}

// withoutSwap makes comments of fstab's swap lines and counts them.
func withoutSwap(fstab string) (text string, lines int) {
	all := strings.Split(fstab, "\n")
	for i, line := range all {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "swap" && !strings.HasPrefix(f[0], "#") {
			all[i] = "# k3lab: " + line
			lines++
		}
	}
	return strings.Join(all, "\n"), lines
}
