// Package workspace knows the files of a workspace: where they are, how they
// are first written, and how one operation at a time holds them.
package workspace

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/k3lab/k3lab/internal/fault"
)

// Dir is a workspace: the user's git repository of settings, Terraform and
// Ansible files, and .k3lab/ with what k3lab keeps on this computer only.
type Dir struct{ root string }

// marker is the file a workspace is known by.
const marker = "terraform/vars/nodes.yaml"

// At returns the workspace in that directory, whether or not it exists yet.
func At(dir string) (Dir, error) {
	root, err := filepath.Abs(dir)
	return Dir{root}, err
}

// Find returns the workspace in dir. With dir empty it is looked for from the
// working directory upwards, as git does.
func Find(dir string) (Dir, error) {
	if dir != "" {
		d, err := At(dir)
		if err != nil {
			return Dir{}, err
		}
		if !d.marked() {
			return Dir{}, fault.New(fault.Invalid, dir, "k3lab init "+dir, "there is no workspace here: %s is missing", marker)
		}
		return d, nil
	}
	start, err := os.Getwd()
	if err != nil {
		return Dir{}, err
	}
	for at := start; ; at = filepath.Dir(at) {
		if d := (Dir{at}); d.marked() {
			return d, nil
		}
		if at == filepath.Dir(at) {
			return Dir{}, fault.New(fault.Invalid, start, "k3lab init DIR, or k3lab -C DIR",
				"there is no workspace here or above: %s is missing", marker)
		}
	}
}

func (d Dir) marked() bool {
	_, err := os.Stat(d.Path(marker))
	return !errors.Is(err, fs.ErrNotExist)
}

// Root is the workspace's directory, absolute.
func (d Dir) Root() string { return d.root }

// Path is a path of the workspace, absolute.
func (d Dir) Path(relative string) string {
	if filepath.IsAbs(relative) {
		return relative
	}
	return filepath.Join(d.root, filepath.FromSlash(relative))
}

// SSHKey is the private key k3lab has made to log in with.
func (d Dir) SSHKey() string { return d.Path(".k3lab/ssh/id_ed25519") }

// KnownHosts holds the machines' host keys, pinned at first contact.
func (d Dir) KnownHosts() string { return d.Path(".k3lab/known_hosts") }

// Kubeconfig is the administrator's kubeconfig.
func (d Dir) Kubeconfig() string { return d.Path(".k3lab/kubeconfig") }

// Runs holds one journal for each operation.
func (d Dir) Runs() string { return d.Path(".k3lab/runs") }

// Cache holds what can be downloaded again.
func (d Dir) Cache() string { return d.Path(".k3lab/cache") }
