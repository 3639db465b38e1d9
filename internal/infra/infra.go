package infra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"github.com/hashicorp/terraform-exec/tfexec"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/fault"
)

// Options is what Terraform needs to know of a lab and of the computer it runs
// on.
type Options struct {
	Dir    string            // the workspace
	Lab    *config.Lab       // its settings, valid
	Tokens map[string]string // API token of each endpoint

	Binary   string // the terraform or tofu to use: path or name; empty: looked for
	Fallback string // used when none is found, before a download is tried (K3LAB_TOFU)
	CacheDir string // where a downloaded terraform is kept

	PluginBinary string // the k3lab binary that serves provider k3lab
	Version      string // its version
	Mirror       string // a file-system mirror of providers for work offline; may be empty

	Recipients []age.Recipient // who can read the copies of the state
	VMs        VMs             // finds VMs an interrupted run left; nil: not looked for

	// Grace is how long an interrupted terraform may take to finish what it
	// began before it is killed. Default 5 minutes: a clone takes minutes on
	// slow disks, and one cut off is a VM Terraform does not know of.
	Grace time.Duration
	// Parallelism limits how many resources are worked on at once. Default 10,
	// Terraform's own.
	Parallelism int
}

// Terraform runs the configuration of one workspace. Its methods may not be
// called concurrently. Close removes what it keeps between Plan and Apply.
type Terraform struct {
	opts  Options
	paths paths
	names naming

	tf    *tfexec.Terraform // set by prepare
	saved *savedPlan        // set by plan
}

// savedPlan is a plan file waiting to be applied.
type savedPlan struct {
	file    string
	destroy bool
}

// paths are the places in a workspace this package reads and writes.
type paths struct {
	root, state, run, rc, bundle, plugins, backups, initialised, lockFile string
}

func workspacePaths(dir string) paths {
	own := filepath.Join(dir, ".k3lab")
	root := filepath.Join(dir, "terraform")
	return paths{
		root:        root,
		state:       own,
		run:         filepath.Join(own, "infra"),
		rc:          filepath.Join(own, "terraform.rc"),
		bundle:      filepath.Join(own, "ca-bundle.pem"),
		plugins:     filepath.Join(own, "plugins"),
		backups:     filepath.Join(own, "state-backups"),
		initialised: filepath.Join(own, "terraform-init"),
		lockFile:    filepath.Join(root, ".terraform.lock.hcl"),
	}
}

// New returns a Terraform for the workspace. Nothing is read or run yet.
func New(opts Options) (*Terraform, error) {
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, err
	}
	opts.Dir = dir
	if opts.Grace == 0 {
		opts.Grace = 5 * time.Minute
	}
	if opts.Parallelism == 0 {
		opts.Parallelism = 10
	}
	return &Terraform{opts: opts, paths: workspacePaths(dir), names: newNaming(opts.Lab)}, nil
}

// Close removes the saved plan and everything else a plan leaves for Apply,
// because it holds the API tokens.
func (t *Terraform) Close() error {
	t.saved = nil
	return os.RemoveAll(t.paths.run)
}

// prepare makes Terraform ready to plan: the binary found, the CLI
// configuration written, the providers installed.
func (t *Terraform) prepare(ctx context.Context) error {
	stale, err := StaleProviders(t.opts.Dir, t.opts.Lab)
	if err != nil {
		return err
	}
	if stale {
		return fault.New(fault.Invalid, ProvidersPath, "k3lab fmt", "does not fit the endpoints of terraform/vars/proxmox.yaml")
	}
	if _, err := os.Stat(t.paths.root); err != nil {
		return fault.New(fault.Invalid, "terraform", "k3lab init", "not a workspace: %w", err)
	}
	if err := os.MkdirAll(t.paths.state, 0o755); err != nil {
		return err
	}
	binary, err := findBinary(ctx, t.opts)
	if err != nil {
		return err
	}
	if err := WriteSupport(t.opts); err != nil {
		return err
	}
	t.tf, err = tfexec.NewTerraform(t.paths.root, binary)
	if err != nil {
		return err
	}
	if err := t.tf.SetEnv(cleanEnviron(os.Environ(), t.opts)); err != nil {
		return err
	}
	if err := t.tf.SetWaitDelay(t.opts.Grace); err != nil {
		return err
	}
	t.tf.SetStdout(io.Discard)
	return t.init(ctx)
}

// interrupted is the fault of a command that ended because of ctx, or nil. It
// must be asked before a tfexec error is printed: that of a terraform which
// ended in order after the interrupt has no text.
func interrupted(ctx context.Context, command string) error {
	cause := context.Cause(ctx)
	if cause == nil {
		return nil
	}
	if errors.Is(cause, context.DeadlineExceeded) {
		return fault.New(fault.Failed, "terraform", "", "%s took too long: %w", command, cause)
	}
	return fault.New(fault.Interrupted, "terraform", "the same command again",
		"%s was interrupted; what was made is in the state: %w", command, cause)
}

// secretFile writes text to a new file in the run directory that only the user
// can read, and returns its path.
func (t *Terraform) secretFile(name string, text []byte) (string, error) {
	if err := os.MkdirAll(t.paths.run, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(t.paths.run, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return "", fmt.Errorf("write variables for terraform: %w", err)
	}
	return path, nil
}
