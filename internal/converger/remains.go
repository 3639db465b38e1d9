package converger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// endPatience is how long processes that were killed may take to be gone.
const endPatience = 20 * time.Second

// remains is what a machine has of what is not to be there.
type remains struct {
	processes  []int
	interfaces []string
	namespaces []string
	addresses  [][2]string // interface, address with its length
	filters    []string    // programs that list chains
}

// remains looks for what nobody declares: what containers leave when the program
// that runs them is gone.
func (q queries) remains(ctx context.Context, v *view, l *Remains) (remains, error) {
	found := remains{processes: v.processesOf(l.Programs)}
	for _, name := range l.Interfaces {
		if v.exists("/sys/class/net/" + name) {
			found.interfaces = append(found.interfaces, name)
		}
	}
	if l.Namespaces != "" {
		paths, err := filepath.Glob(v.at("/run/netns/" + l.Namespaces + "*"))
		if err != nil {
			return found, err
		}
		for _, p := range paths {
			found.namespaces = append(found.namespaces, filepath.Base(p))
		}
	}
	for _, address := range l.Addresses {
		out, err := q.programs.run(ctx, nil, "ip", "-oneline", "address", "show", "to", address)
		if err != nil {
			return found, err
		}
		for line := range strings.Lines(string(out)) {
			if f := strings.Fields(line); len(f) > 3 {
				found.addresses = append(found.addresses, [2]string{f[1], f[3]})
			}
		}
	}
	for _, name := range []string{"iptables", "ip6tables"} {
		for _, program := range []string{name, filepath.Join(l.Tools, name)} {
			out, err := q.programs.run(ctx, nil, program+"-save")
			if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
				continue // the next one, or there are no chains
			}
			if err != nil {
				return found, err
			}
			if slices.ContainsFunc(l.Chains, func(chain string) bool { return bytes.Contains(out, []byte(chain)) }) {
				found.filters = append(found.filters, program)
			}
			break
		}
	}
	return found, nil
}

// processesOf are the processes whose program lies below one of these paths, and
// all that they have started.
func (v *view) processesOf(programs []string) []int {
	parents, ours := map[int]int{}, map[int]bool{}
	dirs, err := filepath.Glob(v.at("/proc/[0-9]*"))
	if err != nil {
		return nil
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		// One that ends meanwhile is gone.
		program, _ := os.Readlink(filepath.Join(dir, "exe"))
		for _, p := range programs {
			ours[pid] = ours[pid] || program == p || strings.HasPrefix(program, p+"/") || strings.HasPrefix(program, p+" (deleted)")
		}
		stat, _ := os.ReadFile(filepath.Join(dir, "stat"))
		if f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])); len(f) > 1 {
			parents[pid], _ = strconv.Atoi(f[1]) // 0: none
		}
	}
	var out []int
	for pid := range parents {
		for p, hops := pid, 0; p > 1 && hops < len(parents); p, hops = parents[p], hops+1 {
			if ours[p] {
				out = append(out, pid)
				break
			}
		}
	}
	slices.Sort(out)
	return out
}

func (v *view) planRemains(l *Remains) ([]action, error) {
	if v.remainsErr != nil {
		return nil, v.remainsErr
	}
	f := v.remains
	var parts []string
	count := func(n int, one, more string) {
		switch {
		case n == 1:
			parts = append(parts, "1 "+one)
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d %s", n, more))
		}
	}
	count(len(f.processes), "process", "processes")
	if len(f.interfaces) > 0 {
		parts = append(parts, "interfaces "+strings.Join(f.interfaces, ", "))
	}
	count(len(f.namespaces), "network namespace", "network namespaces")
	for _, a := range f.addresses {
		parts = append(parts, "address "+a[1])
	}
	if len(f.filters) > 0 {
		parts = append(parts, "chains of iptables")
	}
	if parts == nil {
		return nil, nil
	}
	return one(Change{Action: "delete", Detail: strings.Join(parts, ", ")}, func(ctx context.Context, w *writer) error {
		return w.removeRemains(ctx, l)
	}), nil
}

// removeRemains looks again: what ran when it was planned was stopped since.
func (w *writer) removeRemains(ctx context.Context, l *Remains) error {
	if err := w.endProcesses(ctx, l.Programs); err != nil {
		return err
	}
	f, err := w.view.queries.remains(ctx, w.view, l)
	if err != nil {
		return err
	}
	for _, name := range f.namespaces {
		if err := w.run(ctx, "ip", "netns", "delete", name); err != nil {
			return err
		}
	}
	for _, a := range f.addresses {
		if err := w.run(ctx, "ip", "address", "delete", a[1], "dev", a[0]); err != nil {
			return err
		}
	}
	for _, name := range f.interfaces {
		if !w.view.exists("/sys/class/net/" + name) {
			continue // it went with another
		}
		if err := w.run(ctx, "ip", "link", "delete", name); err != nil {
			return err
		}
	}
	for _, program := range f.filters {
		// All other rules stay: they are loaded as they were listed.
		const script = `set -e; rules=$("$1-save"); program=$1; shift; printf "%s\n" "$rules" | grep -v -F "$@" | "$program-restore"`
		args := []string{"sh", "-c", script, "sh", program}
		for _, chain := range l.Chains {
			args = append(args, "-e", chain)
		}
		if err := w.run(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// endProcesses kills until none is left: one may start another meanwhile.
func (w *writer) endProcesses(ctx context.Context, programs []string) error {
	ctx, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		pids := w.view.processesOf(programs)
		if len(pids) == 0 {
			return nil
		}
		args := []string{"sh", "-c", `kill -s KILL -- "$@" 2>/dev/null || :`, "sh"}
		for _, pid := range pids {
			args = append(args, strconv.Itoa(pid))
		}
		if err := w.run(ctx, args...); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes that do not end: %v", pids)
		case <-again.C:
		}
	}
}
