package secrets

import (
	"fmt"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
)

const (
	// ruleFileName is where sops looks for whom a new file is to be encrypted.
	ruleFileName = ".sops.yaml"
	pathPattern  = `\.sops\.yaml$`
)

// Recipients are the age keys of everyone who can read the secrets, for what
// else they are to read; where there is no secrets file yet, the user's own.
// Keys that only an age plugin can use are left out.
func (s *Store) Recipients() []age.Recipient {
	s.mu.Lock()
	defer s.mu.Unlock()
	var classic, hybrid []age.Recipient
	for _, text := range s.recipients() {
		if r, err := age.ParseX25519Recipient(text); err == nil {
			classic = append(classic, r)
		} else if r, err := agessh.ParseRecipient(text); err == nil {
			classic = append(classic, r)
		} else if r, err := age.ParseHybridRecipient(text); err == nil {
			hybrid = append(hybrid, r)
		}
	}
	if len(classic) > 0 {
		return classic // age refuses to mix them: a hybrid key would promise too much
	}
	return hybrid
}

func (s *Store) recipients() []string {
	if s.doc != nil {
		return s.doc.recipients()
	}
	return s.identities.recipients
}

// CreationRule returns the name and text of the file that tells sops whom to
// encrypt the lab's secrets for. Where the user has no age key yet, one is made.
func (s *Store) CreationRule() (name string, text []byte, err error) {
	if err := s.ensureIdentity(); err != nil {
		return "", nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out strings.Builder
	out.WriteString("# Whom sops encrypts new secrets files for: the public halves of age keys. After\n" +
		"# adding one (of a second computer, a second person): sops updatekeys " + FileName + "\n" +
		"creation_rules:\n  - path_regex: " + pathPattern + "\n    age:\n")
	for _, r := range s.recipients() {
		fmt.Fprintf(&out, "      - %s\n", r)
	}
	fmt.Fprintf(&out, "stores:\n  yaml:\n    indent: %d\n", indent)
	return ruleFileName, []byte(out.String()), nil
}

func (s *Store) ensureIdentity() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.identities.recipients) > 0 || s.doc != nil {
		return nil
	}
	ids, err := ensureIdentity()
	if err == nil {
		s.identities = ids
	}
	return err
}
