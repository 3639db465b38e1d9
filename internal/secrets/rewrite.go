package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/aes"
	"github.com/google/renameio/v2"

	"github.com/k3lab/k3lab/internal/fault"
)

// ErrChanged says that the secrets were changed by somebody else meanwhile.
var ErrChanged = errors.New("it was changed meanwhile, by another program or person")

// Text returns all secrets in plain, as YAML with its comments; empty where
// there is no secrets file yet.
func (s *Store) Text() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doc == nil || len(s.doc.tree.Branches[0]) == 0 {
		return nil, nil
	}
	text, err := yamlStore().EmitPlainFile(s.doc.tree.Branches)
	if err != nil {
		return nil, errors.New("secrets: they cannot be written as YAML")
	}
	return text, nil
}

// Names lists the keys that have a value, a key of a map as MAP.KEY, in the
// order of the file.
func (s *Store) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doc == nil {
		return nil
	}
	var names []string
	leaves(s.doc.tree.Branches[0], nil, func(path []string, _ any) { names = append(names, strings.Join(path, ".")) })
	return names
}

// Replace puts new for old, which Text has returned, keeping whom the file is
// encrypted for. What did not change stays encrypted as it was, so that git
// shows the rest. It fails with ErrChanged where old is no longer what is there.
func (s *Store) Replace(old, new []byte) error {
	branch, err := parsePlain(new)
	if err != nil {
		return err
	}
	return s.rewrite(func(d *document) error {
		now, err := s.Text()
		if err != nil {
			return err
		}
		if !bytes.Equal(now, old) {
			return fault.New(fault.Failed, FileName, "k3lab secrets edit", "%w", ErrChanged)
		}
		d.tree.Branches[0] = branch
		return nil
	})
}

// Change is one of several changes that Update makes at once.
type Change struct {
	Path  []string
	Value Value // the zero Value removes what is there
}

// Update makes all changes or none.
func (s *Store) Update(changes ...Change) error {
	return s.rewrite(func(d *document) error {
		for _, c := range changes {
			if err := d.update(c); err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *document) update(c Change) error {
	if c.Value.text != nil {
		return d.set(c.Path, c.Value.Reveal())
	}
	if _, there := d.get(c.Path); !there {
		return nil
	}
	path := make([]any, len(c.Path))
	for i, key := range c.Path {
		path[i] = key
	}
	branch, err := d.tree.Branches[0].Unset(path)
	if err != nil {
		return fmt.Errorf("secrets: %s cannot be removed", strings.Join(c.Path, "."))
	}
	d.tree.Branches[0] = branch
	return nil
}

// Rekey encrypts all secrets anew: under a new data key and for those whom the
// creation rule in .sops.yaml names now. Somebody who is no longer named cannot
// read what is set from now on; what they have read they know. Without a
// secrets file it does nothing.
func (s *Store) Rekey() error {
	if s.Names() == nil {
		return nil
	}
	return s.rewrite(func(d *document) error {
		fresh, err := newDocument(filepath.Dir(s.path), s.identities)
		if err != nil {
			return err
		}
		branches := d.tree.Branches
		*d = document{tree: fresh.tree, dataKey: fresh.dataKey, cipher: aes.NewCipher()}
		d.tree.Branches = branches
		return nil
	})
}

// rewrite reads the file under the lock, changes the document and replaces the
// file, unless nobody here could read the new one.
func (s *Store) rewrite(change func(*document) error) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.read(); err != nil {
		return err
	}
	if err := s.ensureIdentity(); err != nil {
		return err
	}
	doc, err := s.load()
	if err == nil && doc == nil {
		doc, err = newDocument(filepath.Dir(s.path), s.identities)
	}
	if err != nil {
		return err
	}
	known := doc.known
	if err := change(doc); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replace(doc, known)
}

// replace encrypts the document and puts it in the place of the file; known are
// the keys whose values may stand there in plain. What is to be written is read
// first, so that the old file stays where nobody could decrypt the new one.
func (s *Store) replace(doc *document, known []string) error {
	text, err := doc.encrypt()
	if err != nil {
		return err
	}
	for _, name := range doc.plain() {
		if !slices.Contains(known, name) {
			return fault.New(fault.Invalid, FileName, "another name", "%s would stand there unencrypted: its rules say so", name)
		}
	}
	read, err := decode(text, s.identities)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(s.path, text, 0o600); err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	s.doc = read
	return nil
}

// yamlLine finds where a YAML parser stumbled; the rest of what it says may
// quote the text.
var yamlLine = regexp.MustCompile(`line [0-9]+`)

func parsePlain(text []byte) (sops.TreeBranch, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return sops.TreeBranch{}, nil
	}
	branches, err := yamlStore().LoadPlainFile(text)
	if err != nil {
		return nil, fault.New(fault.Invalid, FileName, "KEY: \"VALUE\" on each line", "%s", strings.TrimSuffix("it is no YAML map: "+yamlLine.FindString(err.Error()), ": "))
	}
	if len(branches) != 1 {
		return nil, fault.New(fault.Invalid, FileName, "remove the lines ---", "it holds %d YAML documents, and one is read", len(branches))
	}
	var wrong error
	leaves(branches[0], nil, func(path []string, value any) {
		if _, ok := value.(string); !ok && wrong == nil {
			wrong = fault.New(fault.Invalid, FileName, "put the value in quotes", "%s is no text", strings.Join(path, "."))
		}
	})
	return branches[0], wrong
}

// leaves calls f for every value of a tree, comments left out.
func leaves(branch sops.TreeBranch, path []string, f func(path []string, value any)) {
	for _, item := range branch {
		if _, isComment := item.Key.(sops.Comment); isComment {
			continue
		}
		at := append(slices.Clone(path), fmt.Sprint(item.Key))
		if below, ok := item.Value.(sops.TreeBranch); ok {
			leaves(below, at, f)
			continue
		}
		f(at, item.Value)
	}
}
