package workspace

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/secrets"
)

// Options says what Init writes.
type Options struct {
	Example    string // single, small, ha or metal
	LabName    string
	PublicKeys []string // texts of public key files; a text may hold several keys
	Force      bool     // overwrite files that differ
	Sandbox    *Sandbox // fit the settings to this sandbox; nil: to a usual home network
}

// Result says what Init did.
type Result struct {
	Files   []string // written, relative to the workspace
	Notices []string
}

// Init writes a workspace. A file that is there and differs is left alone and
// all such files are named in the error, unless Force is set; then nothing else
// is written either, and neither is anything where the options make settings
// that are invalid. Secrets and .sops.yaml are only added to, even with Force.
// Running it again changes nothing.
func Init(d Dir, opts Options) (*Result, error) {
	e, err := exampleNamed(opts.Example)
	if err != nil {
		return nil, err
	}
	files, err := render(e, opts)
	if err != nil {
		return nil, err
	}
	if d.marked() { // then an operation may be at work
		lock, err := AcquireLock(d, "init")
		if err != nil {
			return nil, err
		}
		defer lock.Release() //nolint:errcheck // the process ends, and the lock with it
	}
	todo, err := missing(d, files, opts.Force)
	if err != nil {
		return nil, err
	}
	store, err := secrets.Open(d.Root())
	if err != nil {
		return nil, err
	}
	rule, text, err := store.CreationRule()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(d.Path(rule)); errors.Is(err, fs.ErrNotExist) {
		files[rule], todo = text, append(todo, rule) // its recipients may be many, and are the user's
	}
	result := &Result{Files: todo}
	if err := write(d, files, todo); err != nil {
		return nil, err
	}
	if err := result.initSecrets(d, store, opts); err != nil {
		return nil, err
	}
	slices.Sort(result.Files)
	return result, result.initGit(d)
}

// initSecrets generates what the lab needs and keeps what is there.
func (r *Result) initSecrets(d Dir, store *secrets.Store, opts Options) error {
	if err := os.MkdirAll(d.Path(".k3lab"), 0o700); err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	if _, err := os.Stat(d.Path(secrets.FileName)); errors.Is(err, fs.ErrNotExist) {
		r.Files = append(r.Files, secrets.FileName)
	}
	if _, err := store.Ensure(NewToken, "k3s_token"); err != nil {
		return err
	}
	if opts.Sandbox != nil && opts.Sandbox.Token != "" {
		if err := store.Set(secrets.NewValue(opts.Sandbox.Token), "proxmox_api_tokens", sandboxEndpoint); err != nil {
			return err
		}
	}
	r.newAgeKey(store)
	return nil
}

// newAgeKey tells of an age key that was made just now.
func (r *Result) newAgeKey(store *secrets.Store) {
	if file, made := store.KeyFile(); made {
		r.Notices = append(r.Notices, "Your age key is new: "+file+". Back it up: without it "+secrets.FileName+" cannot be read.")
	}
}

// NewToken draws a token for a cluster.
func NewToken() (string, error) {
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	return hex.EncodeToString(b), nil
}

func exampleNamed(name string) (example, error) {
	e, ok := examples()[name]
	if !ok {
		return e, fault.New(fault.Invalid, name, "one of single, small, ha, metal", "there is no example of that name")
	}
	return e, nil
}
