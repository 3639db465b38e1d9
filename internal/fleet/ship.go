package fleet

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/remote"
)

// Where things lie on a machine, each under its digest.
const (
	convergerDir = "/var/lib/k3lab/converger"
	cacheDir     = "/var/lib/k3lab/cache"
)

// ConvergerPath returns where a converger with this digest lies on a machine.
func ConvergerPath(sha256 string) string { return convergerDir + "/" + sha256 }

// architectures maps what uname says to what Go says.
var architectures = map[string]string{"x86_64": "amd64", "aarch64": "arm64"}

// binary returns the converger that the machine runs.
func (f *Fleet) binary(ctx context.Context, r remote.Runner, m *machine) (Binary, error) {
	if err := hold(ctx, m.ship); err != nil {
		return Binary{}, err
	}
	defer func() { <-m.ship }()
	if m.arch == "" {
		arch, err := askArch(ctx, r)
		if err != nil {
			return Binary{}, Named(m.name, err)
		}
		m.arch = arch
	}
	return f.options.Converger(m.arch)
}

func askArch(ctx context.Context, r remote.Runner) (string, error) {
	var out bytes.Buffer
	if err := r.Run(ctx, remote.Cmd{Args: []string{"uname", "-m"}, Stdout: &out}); err != nil {
		return "", err
	}
	word := strings.TrimSpace(out.String())
	if arch, ok := architectures[word]; ok {
		return arch, nil
	}
	return word, nil
}

// install copies the converger to the machine, proves that it arrived and runs,
// and removes older ones.
func (f *Fleet) install(ctx context.Context, r remote.Runner, m *machine, b Binary) error {
	if err := hold(ctx, m.ship); err != nil {
		return err
	}
	defer func() { <-m.ship }()
	if m.shipped == r {
		return nil // by another call, while this one waited
	}
	path := ConvergerPath(b.SHA256)
	if err := r.Put(ctx, path, bytes.NewReader(b.Content), int64(len(b.Content)), 0o755); err != nil {
		return err
	}
	var out bytes.Buffer
	if err := r.Run(ctx, remote.Cmd{Args: []string{"sha256sum", "--", path}, Root: true, Stdout: &out}); err != nil {
		return err
	}
	if sum, _, _ := strings.Cut(out.String(), " "); sum != b.SHA256 {
		remove(ctx, r, path)
		return fault.New(fault.Failed, m.name, "run again; if it stays, look at the machine's disk and memory",
			"converger: %s arrived with the SHA-256 %s", path, sum)
	}
	if err := r.Run(ctx, remote.Cmd{Args: []string{path, "version"}, Root: true}); err != nil {
		remove(ctx, r, path)
		if is, archErr := askArch(ctx, r); archErr == nil && is != m.arch {
			return fault.New(fault.Invalid, m.name, "arch: "+is+" for it in terraform/vars/nodes.yaml",
				"the machine is %s, but the settings say %s", is, m.arch)
		}
		return err
	}
	old := []string{"find", convergerDir, "-mindepth", "1", "-maxdepth", "1", "-type", "f", "!", "-name", b.SHA256, "-delete"}
	if err := r.Run(ctx, remote.Cmd{Args: old, Root: true}); err != nil {
		return fmt.Errorf("old convergers: %w", err)
	}
	m.shipped = r
	return nil
}

// remove takes away what must not stay, also when the operation was interrupted.
func remove(ctx context.Context, r remote.Runner, path string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	defer cancel()
	_ = r.Run(ctx, remote.Cmd{Args: []string{"rm", "-f", "--", path}, Root: true}) // the error that led here says more
}
