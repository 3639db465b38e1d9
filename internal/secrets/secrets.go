// Package secrets keeps a lab's secrets in one SOPS file, encrypted for age keys.
//
// The file can be read and edited with sops itself. All use of SOPS as a library
// is in this package, because most of it is no stable API.
package secrets

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"filippo.io/age"
	"github.com/goccy/go-yaml"
	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/fault"
)

// FileName is the secrets file in a workspace.
const FileName = "secrets.sops.yaml"

// ErrNotFound says that a key has no value.
var ErrNotFound = errors.New("no such secret")

// Value is a secret. However it is printed, it shows nothing of itself.
type Value struct{ text string }

// NewValue makes a secret of a text.
func NewValue(text string) Value { return Value{text} }

// Reveal returns the secret itself.
func (v Value) Reveal() string { return v.text }

// String hides the secret.
func (Value) String() string { return "***" }

// GoString hides the secret.
func (Value) GoString() string { return "***" }

// MarshalJSON hides the secret.
func (Value) MarshalJSON() ([]byte, error) { return json.Marshal("***") }

// Store is the secrets file of one workspace. It is safe for concurrent use, by
// several processes too.
type Store struct {
	path       string
	identities identities
	mu         sync.Mutex
	values     map[string]any // as last read or written
}

// Open reads the secrets file in dir. One that does not exist yet is empty; it
// is written by the first Set. Where the user has no age key yet, one is made
// when it is first needed for writing.
func Open(dir string) (*Store, error) {
	s := &Store{path: filepath.Join(dir, FileName), identities: findIdentities()}
	if err := s.read(); err != nil {
		return nil, err
	}
	return s, nil
}

// Get returns the secret under a key, or under a path of keys. One that is not
// there is ErrNotFound.
func (s *Store) Get(path ...string) (Value, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var at any = s.values
	for _, key := range path {
		m, ok := at.(map[string]any)
		if !ok || m[key] == nil {
			return Value{}, s.missing(path)
		}
		at = m[key]
	}
	text, ok := at.(string)
	if !ok {
		return Value{}, s.missing(path)
	}
	return Value{text}, nil
}

func (s *Store) missing(path []string) error {
	return fault.New(fault.Invalid, FileName, "k3lab secrets set "+strings.Join(path, "."), "%s: %w", strings.Join(path, "."), ErrNotFound)
}

// Set writes one secret.
func (s *Store) Set(v Value, path ...string) error {
	_, err := s.change(path, func(string, bool) (string, error) { return v.text, nil })
	return err
}

// Ensure returns the secret and, where there is none yet, has it generated and
// written first. Of several processes that do so at once one generates.
func (s *Store) Ensure(generate func() (string, error), path ...string) (Value, error) {
	return s.change(path, func(old string, there bool) (string, error) {
		if there {
			return old, nil
		}
		return generate()
	})
}

// change reads the file under a lock, changes one value and writes it back.
func (s *Store) change(path []string, next func(old string, there bool) (string, error)) (Value, error) {
	unlock, err := s.lock()
	if err != nil {
		return Value{}, err
	}
	defer unlock()
	if err := s.read(); err != nil {
		return Value{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.values
	for _, key := range path[:len(path)-1] {
		m, ok := at[key].(map[string]any)
		if !ok {
			m = map[string]any{}
			at[key] = m
		}
		at = m
	}
	key := path[len(path)-1]
	old, there := at[key].(string)
	text, err := next(old, there)
	if err != nil {
		return Value{}, err
	}
	if there && text == old {
		return Value{text}, nil
	}
	at[key] = text
	return Value{text}, s.write()
}

// lock keeps other processes from changing the file. The lock ends with the
// process that holds it.
func (s *Store) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(filepath.Dir(s.path), ".secrets.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("secrets: lock: %w", err)
	}
	return func() { f.Close() }, nil
}

func (s *Store) read() error {
	cipher, err := os.ReadFile(s.path)
	values := map[string]any{}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("secrets: %w", err)
	default:
		plain, err := decryptYAML(cipher, s.identities)
		if err != nil {
			return err
		}
		if err := yaml.Unmarshal(plain, &values); err != nil {
			return fault.New(fault.Invalid, FileName, "", "its content is no map of keys")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values = values
	return nil
}

func (s *Store) write() error {
	if len(s.identities.list) == 0 {
		var err error
		if s.identities, err = createIdentity(); err != nil {
			return err
		}
	}
	plain, err := yaml.MarshalWithOptions(s.values, yaml.UseLiteralStyleIfMultiline(true))
	if err != nil {
		return errors.New("secrets: they cannot be written as YAML")
	}
	cipher, err := encryptYAML(plain, s.identities.recipients())
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(s.path, cipher, 0o600); err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	return nil
}

// Recipients are the age keys the secrets are encrypted for.
func (s *Store) Recipients() []age.Recipient {
	var out []age.Recipient
	for _, id := range s.identities.list {
		out = append(out, id.Recipient())
	}
	return out
}

// KeyFile is where the age key is kept, and whether this process has made it.
func (s *Store) KeyFile() (path string, made bool) { return s.identities.file, s.identities.made }
