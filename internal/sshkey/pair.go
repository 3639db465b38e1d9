// Package sshkey keeps the key pair k3lab logs in with: in a file for ssh, in
// the secrets file for other computers, and through a rotation.
package sshkey

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/crypto/ssh"

	"github.com/k3lab/k3lab/internal/secrets"
)

// Where the secrets file has private keys. A new one is there before machines are
// told of it; old ones are kept because a VM snapshot brings back machines that
// know only them.
const (
	SecretName  = "ssh_private_key"          //nolint:gosec // a name, no credential
	nextName    = "ssh_private_key_next"     //nolint:gosec // the same
	retiredName = "ssh_private_keys_retired" //nolint:gosec // the same
)

// Pair is where a key pair is kept: the file to log in with, and the secrets
// file, from which a second computer gets it.
type Pair struct {
	File        string // private key; the public one is beside it, .pub
	SecretsFile string
	Own         string // the user's private key; then nothing is made or written
}

// ErrLost says that there is no key pair, or that it is gone.
var ErrLost = errors.New("the private key file is gone and the secrets file does not hold it")

// Restore returns the public key. A private key file that is missing comes back
// from the secrets file, and one that was retired on another computer is replaced
// by the one that came after it. It never makes a key: where neither has one the
// error is ErrLost.
func (k Pair) Restore() (ssh.PublicKey, error) {
	if k.Own != "" {
		return publicOf(k.Own)
	}
	store, err := secrets.Open(filepath.Dir(k.SecretsFile))
	if err != nil {
		return nil, err
	}
	return k.restore(store)
}

func (k Pair) restore(store *secrets.Store) (ssh.PublicKey, error) {
	kept, err := store.Get(SecretName)
	if err != nil && !errors.Is(err, secrets.ErrNotFound) {
		return nil, err
	}
	inFile, err := os.ReadFile(k.File)
	switch {
	case errors.Is(err, fs.ErrNotExist) && kept.Reveal() == "":
		return nil, ErrLost
	case errors.Is(err, fs.ErrNotExist):
		return k.write(kept.Reveal())
	case err != nil:
		return nil, fmt.Errorf("private key: %w", err)
	case kept.Reveal() == "":
		// Made before it could be kept: the file is the only copy.
		if err := store.Set(secrets.NewValue(string(inFile)), SecretName); err != nil {
			return nil, err
		}
	case !same(kept.Reveal(), string(inFile)):
		return k.follow(store, kept, string(inFile))
	}
	return publicOf(k.File)
}

// follow takes the kept key over one that was retired, and refuses any other: it
// may be the only copy.
func (k Pair) follow(store *secrets.Store, kept secrets.Value, inFile string) (ssh.PublicKey, error) {
	old, err := retired(store)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(old, func(o string) bool { return same(o, inFile) }) {
		return k.write(kept.Reveal())
	}
	return nil, fmt.Errorf("%s and %s in %s are different keys: delete the file to get the kept one back, "+
		"or k3lab secrets set %s to keep the one in the file", k.File, SecretName, secrets.FileName, SecretName)
}

// Create returns the key pair that is there, and makes one where there is none.
// The secrets file has it before the key file, so what machines are given is
// never the only copy.
func (k Pair) Create() (ssh.PublicKey, error) {
	public, err := k.Restore()
	if !errors.Is(err, ErrLost) {
		return public, err
	}
	store, err := secrets.Open(filepath.Dir(k.SecretsFile))
	if err != nil {
		return nil, err
	}
	text, err := store.Ensure(generate, SecretName)
	if err != nil {
		return nil, err
	}
	return k.write(text.Reveal())
}

func generate() (string, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("private key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "k3lab")
	if err != nil {
		return "", fmt.Errorf("private key: %w", err)
	}
	return string(pem.EncodeToMemory(block)), nil
}

// write puts both halves where ssh looks for them.
func (k Pair) write(private string) (ssh.PublicKey, error) {
	signer, err := ssh.ParsePrivateKey([]byte(private))
	if err != nil {
		return nil, fmt.Errorf("%s in %s is no private key: %w", SecretName, secrets.FileName, err)
	}
	if err := os.MkdirAll(filepath.Dir(k.File), 0o700); err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	if !strings.HasSuffix(private, "\n") {
		private += "\n"
	}
	if err := renameio.WriteFile(k.File, []byte(private), 0o600); err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	if err := renameio.WriteFile(k.File+".pub", []byte(Line(signer.PublicKey())+"\n"), 0o644); err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return signer.PublicKey(), nil
}

// publicOf reads the public half of a private key file. One with a passphrase
// needs its .pub beside it.
func publicOf(file string) (ssh.PublicKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err == nil {
		return signer.PublicKey(), nil
	}
	var locked *ssh.PassphraseMissingError
	if !errors.As(err, &locked) {
		return nil, fmt.Errorf("%s is no private key: %w", file, err)
	}
	if text, err = os.ReadFile(file + ".pub"); err != nil {
		return nil, fmt.Errorf("public key of a key with a passphrase: %w", err)
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s.pub: %w", file, err)
	}
	return public, nil
}

// same reports whether two texts are the same private key.
func same(a, b string) bool { return strings.TrimSpace(a) == strings.TrimSpace(b) }

// Line is a public key as authorized_keys has it, with our name as comment.
func Line(k ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) + " k3lab"
}

// Authorized is who may log in, as lines of authorized_keys: the user's own keys
// first, then those of key pairs.
func Authorized(users []string, pairs ...ssh.PublicKey) ([]string, error) {
	seen := map[string]bool{}
	var out []string
	add := func(text string, key ssh.PublicKey) {
		if id := string(key.Marshal()); !seen[id] {
			seen[id] = true
			out = append(out, text)
		}
	}
	for _, text := range users {
		text = strings.TrimSpace(text)
		key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("public key %q in access.public_keys: %w", text, err)
		}
		if len(rest) > 0 || strings.Contains(text, "\n") {
			return nil, fmt.Errorf("public key %q in access.public_keys: write one key per entry", text)
		}
		add(text, key)
	}
	for _, public := range pairs {
		add(Line(public), public)
	}
	return out, nil
}
