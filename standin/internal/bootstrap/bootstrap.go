// Package bootstrap carries what all servers of a cluster share (authorities,
// service account key, passwords, encryption keys) from one to the next: over
// HTTPS to a server that joins, and through the datastore, encrypted with the
// token, to a server restored from a snapshot.
package bootstrap

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/k3lab/k3lab/standin/internal/datadir"
)

// KeyPrefix is where the datastore keeps the bundle.
const KeyPrefix = "/bootstrap/"

// ErrWrongToken means that a bundle exists which this token does not open.
var ErrWrongToken = errors.New("bootstrap data already found and encrypted with different token")

// shared are the files all servers hold alike, below the server directory.
var shared = []string{
	"tls/server-ca.crt", "tls/server-ca.key",
	"tls/client-ca.crt", "tls/client-ca.key",
	"tls/request-header-ca.crt", "tls/request-header-ca.key",
	"tls/etcd/server-ca.crt", "tls/etcd/server-ca.key",
	"tls/etcd/peer-ca.crt", "tls/etcd/peer-ca.key",
	"tls/service.key",
	"cred/passwd",
	"cred/ipsec.psk",
	"cred/encryption-config.json",
}

// Bundle maps file names below the server directory to contents.
type Bundle map[string][]byte

// Read collects the bundle from a server's files. Files of features that are
// not switched on are left out.
func Read(dir datadir.Dir) (Bundle, error) {
	bundle := Bundle{}
	for _, name := range shared {
		data, err := os.ReadFile(dir.Server(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		bundle[name] = data
	}
	return bundle, nil
}

// Write stores the bundle as a server's files. Names that are not part of a
// bundle are refused: the other side must not choose what is overwritten.
func (b Bundle) Write(dir datadir.Dir) error {
	for name := range b {
		if !isShared(name) {
			return fmt.Errorf("bootstrap data holds unexpected file %q", name)
		}
	}
	for name, data := range b {
		if err := datadir.WriteFile(dir.Server(name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func isShared(name string) bool {
	for _, known := range shared {
		if name == known {
			return true
		}
	}
	return false
}

// Key is the datastore key for bundles under a token's password.
func Key(password string) string {
	sum := sha256.Sum256([]byte(password))
	return KeyPrefix + hex.EncodeToString(sum[:])[:12]
}

const (
	saltSize   = 16
	iterations = 4096
)

// Seal encrypts the bundle with a token's password.
func (b Bundle) Seal(password string) ([]byte, error) {
	plain, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails: crypto/rand ends the program instead
	aead, err := newAEAD(password, salt)
	if err != nil {
		return nil, err
	}
	return append(salt, aead.Seal(nil, nil, plain, nil)...), nil //nolint:gosec // the AEAD draws its own nonce
}

// Open decrypts a bundle, or fails with ErrWrongToken.
func Open(sealed []byte, password string) (Bundle, error) {
	if len(sealed) < saltSize {
		return nil, errors.New("bootstrap data is cut short")
	}
	aead, err := newAEAD(password, sealed[:saltSize])
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, sealed[saltSize:], nil)
	if err != nil {
		return nil, ErrWrongToken
	}
	var bundle Bundle
	return bundle, json.Unmarshal(plain, &bundle)
}

func newAEAD(password string, salt []byte) (cipher.AEAD, error) {
	key, err := pbkdf2.Key(sha256.New, password, salt, iterations, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
