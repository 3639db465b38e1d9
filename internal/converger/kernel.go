package converger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
)

// Our own files for settings that must hold after the next boot, one for all.
const (
	sysctlPath  = "/etc/sysctl.d/90-k3lab.conf"
	modulesPath = "/etc/modules-load.d/k3lab.conf"
	fileHeader  = "# Written by k3lab; changes made here are put back.\n"
)

// ownSettings are prefixes of sysctls that a container has of its own. All
// others belong to the computer.
var ownSettings = []string{"net.", "kernel.shm", "kernel.msg", "kernel.sem", "kernel.domainname", "fs.mqueue."}

func (v *view) planSysctl(s *Sysctl) ([]action, error) {
	is, err := os.ReadFile(v.at(sysctlFile(s.Key)))
	if err != nil && !notThere(err) {
		return nil, err
	}
	there := err == nil
	now, want := normal(string(is)), normal(s.Value)
	foreign := v.container && !slices.ContainsFunc(ownSettings, func(p string) bool { return strings.HasPrefix(s.Key, p) })
	kept, listed := v.sysctls[s.Key]
	switch {
	case foreign && !there:
		return told("belongs to the computer and is not there; it should be " + want), nil
	case foreign && now != want:
		return told(fmt.Sprintf("belongs to the computer: it is %s there and should be %s", now, want)), nil
	case foreign:
		return nil, nil
	case v.container && !there:
		return told("is not there in this container; the computer lacks the kernel module that brings it"), nil
	case there && now == want && listed && normal(kept) == want:
		return nil, nil
	}
	change := Change{Action: "update", Before: now, After: want, Detail: now + " → " + want}
	switch {
	case !there:
		change.Action, change.Detail = "create", want
	case now == want:
		change.Detail = want + " also after a reboot"
	}
	return one(change, func(_ context.Context, w *writer) error {
		if err := w.once(sysctlPath, w.writeSysctlFile); err != nil {
			return err
		}
		return w.setSysctl(s)
	}), nil
}

func (w *writer) setSysctl(s *Sysctl) error {
	path := w.view.at(sysctlFile(s.Key))
	// Looked at again: a setting may refuse to be written although it holds.
	if is, err := os.ReadFile(path); err == nil && normal(string(is)) == normal(s.Value) {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(s.Value + "\n")
		err = errors.Join(err, f.Close())
	}
	switch {
	case err == nil:
		return nil
	case w.view.container && (errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission)):
		return &notice{"cannot be set in this container; it should be " + s.Value}
	case notThere(err):
		return fmt.Errorf("the kernel has no such setting; a kernel module may be missing: %w", err)
	}
	return err
}

// sysctlFile is where the kernel has a setting: dots separate, and slashes stand
// for dots in names.
func sysctlFile(key string) string {
	return "/proc/sys/" + strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}

func normal(value string) string { return strings.Join(strings.Fields(value), " ") }

func (v *view) readSysctlFile() map[string]string {
	out := map[string]string{}
	for _, line := range v.lines(sysctlPath) {
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			out[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return out
}

// writeSysctlFile writes the settings that are changed, those that stay as they
// are, and none that nobody wants any more.
func (w *writer) writeSysctlFile() error {
	settings := maps.Clone(w.view.sysctls)
	for _, r := range w.view.state.Resources {
		if r.Sysctl != nil && w.selected[r.ID()] {
			settings[r.Sysctl.Key] = r.Sysctl.Value
		}
	}
	for _, key := range w.view.unwantedSysctls() {
		if w.selected["sysctl "+key] {
			delete(settings, key)
		}
	}
	text := strings.Builder{}
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		text.WriteString(key + " = " + settings[key] + "\n")
	}
	return w.writeOwnFile(sysctlPath, text.String())
}

// writeOwnFile writes lines below our header, or removes a file that would be empty.
func (w *writer) writeOwnFile(path, text string) error {
	if text == "" {
		if err := os.Remove(w.view.at(path)); err != nil && !notThere(err) {
			return err
		}
		return nil
	}
	return w.replace(path, strings.NewReader(fileHeader+text), attributes{mode: 0o644})
}

// unwantedSysctls are those our file still has. A state that knows no sysctl at
// all is about something else.
func (v *view) unwantedSysctls() []string {
	wanted := map[string]bool{}
	for _, r := range v.state.Resources {
		if r.Sysctl != nil {
			wanted[r.Sysctl.Key] = true
		}
	}
	return unwanted(wanted, maps.Keys(v.sysctls))
}

func (v *view) dropSysctl(string) []action {
	return one(Change{Action: "delete", Detail: "no longer kept; what it is now stays until the next boot"},
		func(_ context.Context, w *writer) error { return w.once(sysctlPath, w.writeSysctlFile) })
}

func (v *view) planModule(m *Module) ([]action, error) {
	loaded := v.moduleLoaded(m.Name)
	if v.container {
		if !loaded {
			return told("belongs to the computer and is not loaded there"), nil
		}
		return nil, nil
	}
	if loaded && v.modules[m.Name] {
		return nil, nil
	}
	change := Change{Action: "update", Detail: "load, now and at boot"}
	if loaded {
		change.Detail = "load at boot"
	}
	return one(change, func(ctx context.Context, w *writer) error {
		if err := w.once(modulesPath, w.writeModulesFile); err != nil {
			return err
		}
		if w.view.moduleLoaded(m.Name) {
			return nil
		}
		return w.run(ctx, "modprobe", "--", m.Name)
	}), nil
}

// moduleLoaded reports whether the kernel has what the module brings, also when
// it is built in.
func (v *view) moduleLoaded(name string) bool {
	under := strings.ReplaceAll(name, "-", "_")
	if v.exists("/sys/module/" + under) {
		return true
	}
	for _, line := range v.lines("/proc/modules") {
		if loaded, _, _ := strings.Cut(line, " "); loaded == under {
			return true
		}
	}
	for _, line := range v.lines("/proc/filesystems") {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == name {
			return true
		}
	}
	for _, line := range v.lines("/lib/modules/" + v.text("/proc/sys/kernel/osrelease") + "/modules.builtin") {
		file := line[strings.LastIndex(line, "/")+1:]
		if strings.ReplaceAll(strings.TrimSuffix(file, ".ko"), "-", "_") == under {
			return true
		}
	}
	return false
}

// moduleThere reports whether the kernel has what the module brings, or can load
// it. A container cannot load anything.
func (v *view) moduleThere(name string) bool {
	if v.moduleLoaded(name) || v.container {
		return v.moduleLoaded(name)
	}
	for _, line := range v.lines("/lib/modules/" + v.text("/proc/sys/kernel/osrelease") + "/modules.dep") {
		file, _, _ := strings.Cut(line, ":")
		file, _, _ = strings.Cut(file[strings.LastIndex(file, "/")+1:], ".ko")
		if strings.ReplaceAll(file, "-", "_") == strings.ReplaceAll(name, "-", "_") {
			return true
		}
	}
	return false
}

func (v *view) readModulesFile() map[string]bool {
	out := map[string]bool{}
	for _, line := range v.lines(modulesPath) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out[line] = true
		}
	}
	return out
}

func (w *writer) writeModulesFile() error {
	modules := maps.Clone(w.view.modules)
	for _, r := range w.view.state.Resources {
		if r.Module != nil && w.selected[r.ID()] {
			modules[r.Module.Name] = true
		}
	}
	for _, name := range w.view.unwantedModules() {
		if w.selected["module "+name] {
			delete(modules, name)
		}
	}
	text := strings.Builder{}
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		text.WriteString(name + "\n")
	}
	return w.writeOwnFile(modulesPath, text.String())
}

func (v *view) unwantedModules() []string {
	wanted := map[string]bool{}
	for _, r := range v.state.Resources {
		if r.Module != nil {
			wanted[r.Module.Name] = true
		}
	}
	return unwanted(wanted, maps.Keys(v.modules))
}

func (v *view) dropModule(string) []action {
	return one(Change{Action: "delete", Detail: "no longer loaded at boot; stays loaded until then"},
		func(_ context.Context, w *writer) error { return w.once(modulesPath, w.writeModulesFile) })
}
