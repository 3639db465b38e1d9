package tfprovider

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/crypto/ssh"

	"github.com/k3lab/k3lab/internal/secrets"
)

// secretKey is the private key's name in the secrets file.
const secretKey = "ssh_private_key" //nolint:gosec // a name, no credential

// keyPair is where a key pair is kept: the file to log in with, and the secrets
// file, from which a second computer gets it.
type keyPair struct {
	file        string // private key; the public one is beside it, .pub
	secretsFile string
	own         string // the user's private key; then nothing is made or written
}

var errKeyLost = errors.New("the private key file is gone and the secrets file does not hold it")

// restore returns the public key. A private key file that is missing comes back
// from the secrets file. It never makes a key: where neither has one the error
// is errKeyLost.
func (k keyPair) restore() (ssh.PublicKey, error) {
	if k.own != "" {
		return publicOf(k.own)
	}
	store, err := secrets.Open(filepath.Dir(k.secretsFile))
	if err != nil {
		return nil, err
	}
	kept, err := store.Get(secretKey)
	if err != nil && !errors.Is(err, secrets.ErrNotFound) {
		return nil, err
	}
	inFile, err := os.ReadFile(k.file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && kept.Reveal() == "":
		return nil, errKeyLost
	case errors.Is(err, fs.ErrNotExist):
		return k.write(kept.Reveal())
	case err != nil:
		return nil, fmt.Errorf("private key: %w", err)
	case kept.Reveal() == "":
		// Made before it could be kept: the file is the only copy.
		if err := store.Set(secrets.NewValue(string(inFile)), secretKey); err != nil {
			return nil, err
		}
	case strings.TrimSpace(kept.Reveal()) != strings.TrimSpace(string(inFile)):
		return nil, fmt.Errorf("%s and %s in %s are different keys: delete the file to get the kept one back, "+
			"or k3lab secrets set %s to keep the one in the file", k.file, secretKey, secrets.FileName, secretKey)
	}
	return publicOf(k.file)
}

// create returns the key pair that is there, and makes one where there is none.
// The secrets file has it before the key file, so what machines are given is
// never the only copy.
func (k keyPair) create() (ssh.PublicKey, error) {
	public, err := k.restore()
	if !errors.Is(err, errKeyLost) {
		return public, err
	}
	store, err := secrets.Open(filepath.Dir(k.secretsFile))
	if err != nil {
		return nil, err
	}
	text, err := store.Ensure(generate, secretKey)
	if err != nil {
		return nil, err
	}
	return k.write(text.Reveal())
}

// Restore puts a private key file that is missing back from the secrets file, as
// on a second computer. Where neither has a key nothing is done: the key pair is
// not made yet, or lost, which a plan says.
func Restore(file, secretsFile string) error {
	_, err := keyPair{file: file, secretsFile: secretsFile}.restore()
	if errors.Is(err, errKeyLost) {
		return nil
	}
	return err
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
func (k keyPair) write(private string) (ssh.PublicKey, error) {
	signer, err := ssh.ParsePrivateKey([]byte(private))
	if err != nil {
		return nil, fmt.Errorf("%s in %s is no private key: %w", secretKey, secrets.FileName, err)
	}
	if err := os.MkdirAll(filepath.Dir(k.file), 0o700); err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	if !strings.HasSuffix(private, "\n") {
		private += "\n"
	}
	if err := renameio.WriteFile(k.file, []byte(private), 0o600); err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	if err := renameio.WriteFile(k.file+".pub", []byte(line(signer.PublicKey())+"\n"), 0o644); err != nil {
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

// line is a public key as authorized_keys has it, with our name as comment.
func line(k ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) + " k3lab"
}

// AuthorizedKeys are who may log in to the machines, as lines of authorized_keys:
// the user's own keys, and the public half of the private key k3lab logs in with.
func AuthorizedKeys(privateKeyFile string, users []string) ([]string, error) {
	public, err := publicOf(privateKeyFile)
	if err != nil {
		return nil, err
	}
	return authorized(users, public)
}

// authorized is who may log in: the user's own keys first, then the key pair's.
func authorized(users []string, public ssh.PublicKey) ([]string, error) {
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
	add(line(public), public)
	return out, nil
}
