// Package secrets keeps a lab's secrets in one SOPS file, encrypted for age keys.
//
// The file can be read and edited with sops itself, and what others did to it
// with sops (comments, further recipients, order) stays. All use of SOPS as a
// library is in this package, because most of it is no stable API.
package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/fault"
)

// FileName is the secrets file in a workspace.
const FileName = "secrets.sops.yaml"

// ErrNotFound says that a key has no value.
var ErrNotFound = errors.New("no such secret")

// Store is the secrets file of one workspace. It is safe for concurrent use, by
// several processes too.
type Store struct {
	path       string
	mu         sync.Mutex // guards what follows
	identities identities
	doc        *document // as last read or written; nil where there is no file
}

// Open reads the secrets file in dir. One that does not exist yet is empty; it
// is written by the first Set. Where the user has no age key yet, one is made
// when it is first needed for writing. A file that cannot be read is
// fault.Invalid.
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
	v, there, err := s.lookup(path)
	if err == nil && !there {
		name := strings.Join(path, ".")
		err = fault.New(fault.Invalid, FileName, "k3lab secrets set "+name, "%s: %w", name, ErrNotFound)
	}
	return v, err
}

func (s *Store) lookup(path []string) (v Value, there bool, err error) {
	if s.doc == nil {
		return Value{}, false, nil
	}
	at, there := s.doc.get(path)
	if text, ok := at.(string); ok || !there {
		return NewValue(text), there, nil
	}
	name := strings.Join(path, ".")
	return Value{}, true, fault.New(fault.Invalid, FileName, "k3lab secrets set "+name, "%s is no text: it needs quotes", name)
}

// Set writes one secret.
func (s *Store) Set(v Value, path ...string) error {
	_, err := s.change(path, func(Value, bool, error) (Value, error) { return v, nil })
	return err
}

// Ensure returns the secret and, where there is none yet, has it generated and
// written first. Of several processes that do so at once one generates.
func (s *Store) Ensure(generate func() (string, error), path ...string) (Value, error) {
	return s.change(path, func(old Value, there bool, err error) (Value, error) {
		if there || err != nil {
			return old, err
		}
		text, err := generate()
		return NewValue(text), err
	})
}

// change reads the file under a lock, changes one value and writes it back.
func (s *Store) change(path []string, next func(old Value, there bool, err error) (Value, error)) (Value, error) {
	unlock, err := s.lock()
	if err != nil {
		return Value{}, err
	}
	defer unlock()
	if err := s.read(); err != nil {
		return Value{}, err
	}
	s.mu.Lock()
	old, there, err := s.lookup(path)
	s.mu.Unlock()
	v, err := next(old, there, err)
	if err != nil || (there && v.Reveal() == old.Reveal() && old.text != nil) {
		return v, err
	}
	if err := s.ensureIdentity(); err != nil {
		return Value{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return v, s.write(path, v)
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
	s.mu.Lock()
	defer s.mu.Unlock()
	doc, err := s.load()
	if err != nil {
		return err
	}
	s.doc = doc
	return nil
}

func (s *Store) load() (*document, error) {
	text, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no file is an empty one
	}
	if err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	return decode(text, s.identities)
}

// write sets one value and replaces the file. The value must not be one that the
// rules leave in plain, not even where it stood so before.
func (s *Store) write(path []string, v Value) error {
	doc, err := s.load() // one to use up: encoding does
	if err == nil && doc == nil {
		doc, err = newDocument(filepath.Dir(s.path), s.identities)
	}
	if err == nil {
		err = doc.set(path, v.Reveal())
	}
	if err != nil {
		return err
	}
	name := strings.Join(path, ".")
	return s.replace(doc, slices.DeleteFunc(doc.known, func(known string) bool { return known == name }))
}

// KeyFile is where the age key is kept, and whether this process has made it.
func (s *Store) KeyFile() (path string, made bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.identities.file, s.identities.made
}
