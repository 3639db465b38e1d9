package sshkey

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/k3lab/k3lab/internal/secrets"
)

// Keys are who may log in, and which keys of ours nobody may log in with any
// more, both as lines of authorized_keys.
type Keys struct {
	Authorized []string
	Retired    []string
}

// Keys are the users' own keys, the pair's, and in the middle of a rotation the
// next one; and those that were the pair's before.
func (k Pair) Keys(users []string) (Keys, error) {
	if k.Own != "" {
		public, err := publicOf(k.Own)
		if err != nil {
			return Keys{}, err
		}
		lines, err := Authorized(users, public)
		return Keys{Authorized: lines}, err
	}
	store, err := secrets.Open(filepath.Dir(k.SecretsFile))
	if err != nil {
		return Keys{}, err
	}
	public, err := k.restore(store)
	if err != nil {
		return Keys{}, err
	}
	pairs := []ssh.PublicKey{public}
	next, err := store.Get(nextName)
	switch {
	case err == nil:
		signer, err := ssh.ParsePrivateKey([]byte(next.Reveal()))
		if err != nil {
			return Keys{}, fmt.Errorf("%s in %s is no private key: %w", nextName, secrets.FileName, err)
		}
		pairs = append(pairs, signer.PublicKey())
	case !errors.Is(err, secrets.ErrNotFound):
		return Keys{}, err
	}
	authorized, err := Authorized(users, pairs...)
	if err != nil {
		return Keys{}, err
	}
	old, err := retired(store)
	if err != nil {
		return Keys{}, err
	}
	out := Keys{Authorized: authorized}
	for _, text := range old {
		signer, err := ssh.ParsePrivateKey([]byte(text))
		if err != nil {
			return Keys{}, fmt.Errorf("%s in %s has what is no private key: %w", retiredName, secrets.FileName, err)
		}
		// One that a user named as their own is theirs to keep.
		if l := Line(signer.PublicKey()); !slices.ContainsFunc(authorized, func(a string) bool { return sameKey(a, l) }) {
			out.Retired = append(out.Retired, l)
		}
	}
	return out, nil
}

// sameKey reports whether two lines of authorized_keys name the same key.
func sameKey(a, b string) bool {
	parse := func(text string) string {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
		if err != nil {
			return text
		}
		return string(key.Marshal())
	}
	return parse(a) == parse(b)
}

// Next returns a file with the private key that is to follow. It is made, and is
// in the secrets file, before its name is known; asked again, the same.
func (k Pair) Next() (file string, err error) {
	store, err := secrets.Open(filepath.Dir(k.SecretsFile))
	if err != nil {
		return "", err
	}
	next, err := store.Ensure(generate, nextName)
	if err != nil {
		return "", err
	}
	pair := Pair{File: k.File + ".next"}
	_, err = pair.write(next.Reveal())
	return pair.File, err
}

// Promote makes the next key the pair's and retires the one before. In the
// secrets file that is one change; the key file follows, here and on other
// computers, when the pair is restored.
func (k Pair) Promote(now time.Time) error {
	store, err := secrets.Open(filepath.Dir(k.SecretsFile))
	if err != nil {
		return err
	}
	next, err := store.Get(nextName)
	if err != nil {
		return err
	}
	old, err := store.Get(SecretName)
	if err != nil {
		return err
	}
	err = store.Update(
		secrets.Change{Path: []string{retiredName, now.UTC().Format("2006-01-02T15-04-05Z")}, Value: old},
		secrets.Change{Path: []string{SecretName}, Value: next},
		secrets.Change{Path: []string{nextName}},
	)
	if err != nil {
		return err
	}
	if _, err := k.Restore(); err != nil {
		return err
	}
	return errors.Join(remove(k.File+".next"), remove(k.File+".next.pub"))
}

func remove(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("private key: %w", err)
	}
	return nil
}

// retired are the private keys that were the pair's, oldest first.
func retired(store *secrets.Store) ([]string, error) {
	var out []string
	for _, name := range store.Names() {
		if !strings.HasPrefix(name, retiredName+".") {
			continue
		}
		v, err := store.Get(strings.SplitN(name, ".", 2)...)
		if err != nil {
			return nil, err
		}
		out = append(out, v.Reveal())
	}
	return out, nil
}
