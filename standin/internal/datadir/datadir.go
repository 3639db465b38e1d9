// Package datadir names every file K3s keeps under its data directory, so that
// no other package spells a path twice.
package datadir

import (
	"os"
	"path/filepath"
)

// Places outside the data directory.
const (
	Default          = "/var/lib/rancher/k3s"
	ConfigFile       = "/etc/rancher/k3s/config.yaml"
	AdminKubeconfig  = "/etc/rancher/k3s/k3s.yaml"
	NodePasswordFile = "/etc/rancher/node/password" //nolint:gosec // a path, no credential
)

// Dir is a K3s data directory, with a server and an agent half.
type Dir string

// New returns the data directory at path, or the default one.
func New(path string) Dir {
	if path == "" {
		return Default
	}
	return Dir(path)
}

// Server joins elements below the server half.
func (d Dir) Server(elem ...string) string {
	return filepath.Join(append([]string{string(d), "server"}, elem...)...)
}

// Agent joins elements below the agent half.
func (d Dir) Agent(elem ...string) string {
	return filepath.Join(append([]string{string(d), "agent"}, elem...)...)
}

// TLS is a file of the server's certificate tree.
func (d Dir) TLS(elem ...string) string {
	return d.Server(append([]string{"tls"}, elem...)...)
}

// Cred is a file of the server's credentials.
func (d Dir) Cred(name string) string { return d.Server("cred", name) }

// Etcd is a file of the datastore.
func (d Dir) Etcd(elem ...string) string {
	return d.Server(append([]string{"db", "etcd"}, elem...)...)
}

// Snapshots is where datastore snapshots go unless configured otherwise.
func (d Dir) Snapshots() string { return d.Server("db", "snapshots") }

// ResetFlag marks that a cluster reset has been done and not yet been followed
// by a normal start; it keeps a forgotten flag from resetting twice.
func (d Dir) ResetFlag() string { return d.Server("db", "reset-flag") }

// EtcdInitialized reports whether this server already holds a datastore
// member, in which case it needs nobody else to start.
func (d Dir) EtcdInitialized() bool {
	_, err := os.Stat(d.Etcd("member", "wal"))
	return err == nil
}

// MakeServer creates the server half's directories.
func (d Dir) MakeServer() error {
	for _, dir := range []string{
		d.TLS("etcd"), d.TLS("temporary-certs"), d.Server("cred"), d.Server("etc"),
		d.Server("manifests"), d.Server("static", "charts"), d.Etcd(), d.Snapshots(),
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// WriteFile replaces a file in one step, so that a hard stop leaves either the
// old content or the new one.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(data); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Chmod(mode); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
