package op

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/renameio/v2"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/infra"
	"github.com/k3lab/k3lab/internal/workspace"
)

// Validate checks the settings of a workspace, offline. It returns a one-line
// summary and the warnings as text; problems are an error that shows them all.
func Validate(dir string) (summary, warnings string, err error) {
	root, err := workspace.Find(dir)
	if err != nil {
		return "", "", err
	}
	lab, problems := config.Load(root.Root())
	if err := problems.Err(); err != nil {
		return "", "", err
	}
	warnings = problems.Text()
	stale, err := infra.StaleProviders(root.Root(), lab)
	if err != nil {
		return "", "", err
	}
	if stale {
		warnings += "\nterraform/providers.k3lab.tf: it is older than terraform/vars/proxmox.yaml (try: k3lab fmt)"
	}
	return fmt.Sprintf("%s: valid, %s and %s, K3s %s", lab.Name,
		count(len(lab.Servers()), "server"), count(len(lab.Agents()), "agent"), lab.K3s.Version), warnings, nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Format rewrites the names other labs use to ours and brings the generated
// provider file up to date. With check set nothing is written. It returns one
// line for each rewrite.
func Format(dir string, check bool) ([]string, error) {
	root, err := workspace.Find(dir)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, file := range config.Files {
		path := root.Path(file)
		src, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("settings: %w", err)
		}
		out, rewrites, err := config.Format(file, src)
		if err != nil {
			return nil, err
		}
		for _, r := range rewrites {
			lines = append(lines, r.String())
		}
		if check || bytes.Equal(src, out) {
			continue
		}
		if err := renameio.WriteFile(path, out, 0o644); err != nil {
			return nil, fmt.Errorf("settings: %w", err)
		}
	}
	lab, problems := config.Load(root.Root())
	if problems.Err() != nil {
		return lines, nil //nolint:nilerr // what is wrong beyond names is for validate to say
	}
	stale, err := infra.StaleProviders(root.Root(), lab)
	if err != nil || !stale {
		return lines, err
	}
	lines = append(lines, "terraform/providers.k3lab.tf: written anew from terraform/vars/proxmox.yaml")
	if check {
		return lines, nil
	}
	return lines, writeProviders(root, lab)
}

// writeProviders writes the generated provider file.
func writeProviders(root workspace.Dir, lab *config.Lab) error {
	if err := renameio.WriteFile(root.Path("terraform/providers.k3lab.tf"), []byte(infra.ProvidersFile(lab)), 0o644); err != nil {
		return fmt.Errorf("providers: %w", err)
	}
	return nil
}
