package op

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/sandbox"
	"github.com/k3lab/k3lab/internal/workspace"
)

// InitOptions are the options of Init.
type InitOptions struct {
	Dir        string
	Example    string
	LabName    string   // empty: the folder's
	PublicKeys []string // files; empty: those in ~/.ssh
	Sandbox    string   // name of the sandbox to fit the settings to; empty: none
	Force      bool
}

// Init writes a workspace.
func Init(opts InitOptions) (*workspace.Result, error) {
	dir, err := workspace.At(opts.Dir)
	if err != nil {
		return nil, err
	}
	w := workspace.Options{Example: opts.Example, LabName: opts.LabName, Force: opts.Force}
	if w.LabName == "" {
		w.LabName = labName(filepath.Base(dir.Root()))
	}
	if w.PublicKeys, err = publicKeys(opts.PublicKeys); err != nil {
		return nil, err
	}
	if opts.Sandbox != "" {
		if w.Sandbox, err = sandboxSettings(opts.Sandbox); err != nil {
			return nil, err
		}
	}
	result, err := workspace.Init(dir, w)
	if err != nil {
		return nil, err
	}
	c, err := fromEnvironment()
	if err != nil {
		return nil, err
	}
	notice, err := c.note(dir)
	if err != nil {
		return nil, err
	}
	if notice != "" {
		result.Notices = append(result.Notices, notice)
	}
	lab, problems := config.Load(dir.Root())
	if err := problems.Err(); err != nil {
		return nil, err
	}
	return result, writeProviders(dir, lab)
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// labName makes a name of a folder's: lower case, digits and hyphens.
func labName(folder string) string {
	if name := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(folder), "-"), "-"); name != "" {
		return name
	}
	return "lab"
}

// publicKeys reads the named files, or every public key in ~/.ssh.
func publicKeys(files []string) ([]string, error) {
	if len(files) == 0 {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, nil //nolint:nilerr // a user without a home has no keys there
		}
		if files, err = filepath.Glob(filepath.Join(home, ".ssh", "id_*.pub")); err != nil {
			return nil, err
		}
	}
	var keys []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, fault.New(fault.Invalid, f, "--ssh-public-key FILE", "public key: %w", err)
		}
		keys = append(keys, strings.TrimSpace(string(text)))
	}
	return keys, nil
}

// sandboxSettings asks a running sandbox what the settings must say.
func sandboxSettings(name string) (*workspace.Sandbox, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	info, err := sandbox.Status(ctx, name)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(info.CAFile)
	if err != nil {
		return nil, fault.New(fault.Failed, name, "k3lab sandbox up "+name, "sandbox: %w", err)
	}
	s := &workspace.Sandbox{URL: info.Endpoint, CAPEM: ca, Token: string(info.Token)}
	if info.CIDR != "" {
		if s.CIDR, err = netip.ParsePrefix(info.CIDR); err != nil {
			return nil, err
		}
		if s.Gateway, err = netip.ParseAddr(info.Gateway); err != nil {
			return nil, err
		}
	}
	for _, h := range info.Hypervisors {
		s.Hypervisors = append(s.Hypervisors, workspace.SandboxHypervisor{Name: h.Name, MemoryMiB: h.MemoryMiB})
	}
	return s, nil
}
