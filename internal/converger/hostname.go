package converger

import (
	"context"
	"os"
	"slices"
	"strings"
)

const (
	hostnamePath       = "/etc/hostname"
	hostsPath          = "/etc/hosts"
	kernelHostnamePath = "/proc/sys/kernel/hostname"
	ownAddress         = "127.0.1.1" // Debian's address for a machine's own name
)

func (v *view) planHostname(h *Hostname) ([]action, error) {
	now, kept := v.text(kernelHostnamePath), v.text(hostnamePath)
	hosts, err := os.ReadFile(v.at(hostsPath))
	if err != nil && !notThere(err) {
		return nil, err
	}
	known := nameKnown(string(hosts), h.Name)
	var details []string
	if now != h.Name {
		details = append(details, now+" → "+h.Name)
	}
	if kept != h.Name {
		details = append(details, hostnamePath)
	}
	if !known {
		details = append(details, hostsPath)
	}
	if details == nil {
		return nil, nil
	}
	return one(Change{Action: "update", Before: now, After: h.Name, Detail: strings.Join(details, ", ")}, func(ctx context.Context, w *writer) error {
		// The machine must find its own name at every moment: hosts comes first.
		if !known {
			if err := w.replace(hostsPath, strings.NewReader(withName(string(hosts), h.Name)), attributes{mode: 0o644}); err != nil {
				return err
			}
		}
		if kept != h.Name {
			if err := w.replace(hostnamePath, strings.NewReader(h.Name+"\n"), attributes{mode: 0o644}); err != nil {
				return err
			}
		}
		if now != h.Name {
			return w.setHostname(ctx, h.Name)
		}
		return nil
	}), nil
}

func (w *writer) setHostname(ctx context.Context, name string) error {
	f, err := os.OpenFile(w.view.at(kernelHostnamePath), os.O_WRONLY|os.O_TRUNC, 0)
	if err == nil {
		_, err = f.WriteString(name + "\n")
		f.Close()
	}
	if err != nil { // /proc/sys is read-only in some containers, although the name is their own
		return w.run(ctx, "hostname", name)
	}
	return nil
}

func nameKnown(hosts, name string) bool {
	return slices.ContainsFunc(strings.Split(hosts, "\n"), func(line string) bool {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		return len(f) > 1 && slices.Contains(f[1:], name)
	})
}

// withName gives the machine's own address the name, in place of the one it had.
func withName(hosts, name string) string {
	entry := ownAddress + "\t" + name
	lines := strings.Split(strings.TrimRight(hosts, "\n"), "\n")
	at := len(lines)
	for i, line := range lines {
		switch f := strings.Fields(line); {
		case len(f) > 0 && f[0] == ownAddress:
			lines[i] = entry
			return strings.Join(lines, "\n") + "\n"
		case len(f) > 0 && f[0] == "127.0.0.1":
			at = i + 1
		}
	}
	if hosts == "" {
		lines, at = []string{"127.0.0.1\tlocalhost"}, 1
	}
	return strings.Join(slices.Insert(lines, at, entry), "\n") + "\n"
}
