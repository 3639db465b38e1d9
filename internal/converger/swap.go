package converger

import (
	"context"
	"fmt"
	"strings"
)

const (
	swapTarget = "swap.target"
	fstabPath  = "/etc/fstab"
)

// swapServices turn swap on by themselves, without a swap unit: Debian's
// zram-tools, and the swap file of Raspberry Pi OS.
var swapServices = []string{"zramswap.service", "dphys-swapfile.service"}

// planSwap handles swap in its three places: what is on now, what fstab turns on
// at boot, and units that others bring (a partition found by itself, zram).
func (v *view) planSwap(s *Swap) ([]action, error) {
	if !s.Off {
		return nil, nil
	}
	if v.unitsErr != nil {
		return nil, v.unitsErr
	}
	actions := v.stopSwapServices()
	devices := v.swapDevices()
	switch {
	case len(devices) > 0 && v.container:
		actions = told("belongs to the computer: it has swap on " + strings.Join(devices, ", "))
	case len(devices) > 0:
		actions = append(actions, one(Change{Action: "stop", Detail: "swap on " + strings.Join(devices, ", ")}, swapOff)...)
	}
	fstab, a, err := v.foreignFile(fstabPath)
	if err != nil && !notThere(err) {
		return nil, fmt.Errorf("%s: %w", fstabPath, err)
	}
	if text, lines := withoutSwap(fstab); lines > 0 {
		actions = append(actions, action{
			Change: Change{Action: "update", Detail: fmt.Sprintf("%s: %d swap lines become comments", fstabPath, lines), Before: fstab, After: text},
			make: func(_ context.Context, w *writer) error {
				w.reloadLast = true // systemd makes units of fstab
				return w.edit(fstabPath, a, func(now string) string {
					text, _ := withoutSwap(now)
					return text
				})
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

// stopSwapServices masks what would turn swap on again, after it has put its
// swap away.
func (v *view) stopSwapServices() []action {
	var actions []action
	for _, name := range swapServices {
		is := v.units[name]
		if v.container || is.load != "loaded" {
			continue
		}
		actions = append(actions, one(Change{Action: "disable", Detail: "stop and mask " + name + ", which turns swap on"}, func(ctx context.Context, w *writer) error {
			if is.up() {
				if err := w.run(ctx, "systemctl", "stop", "--", name); err != nil {
					return err
				}
			}
			w.reloadLast = true
			return w.run(ctx, "systemctl", "--no-reload", "mask", "--", name)
		})...)
	}
	return actions
}

// swapOff turns off what is still on: a service that was stopped has put its
// own away.
func swapOff(ctx context.Context, w *writer) error {
	for _, device := range w.view.swapDevices() {
		if err := w.run(ctx, "swapoff", "--", device); err != nil {
			return err
		}
	}
	return nil
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
