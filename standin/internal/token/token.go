// Package token reads and writes K3s's join tokens.
//
// The full form is K10<sha256 of the cluster CA>::<user>:<password>: the hash
// lets a joining node check whom it talks to before it sends the password. The
// short form is the password alone, and trusts whatever CA it is shown.
package token

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// The users a token can name.
const (
	UserServer = "server"
	UserAgent  = "node"
)

const prefix = "K10"

var bootstrapForm = regexp.MustCompile(`^[a-z0-9]{6}\.[a-z0-9]{16}$`)

// Token is a parsed token.
type Token struct {
	// CAHash is empty in the short form.
	CAHash string
	// User is empty when the text does not say: whoever uses the token then
	// claims the user that fits its role.
	User     string
	Password string
}

// Parse reads either form.
func Parse(text string) (Token, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return Token{}, errors.New("token is empty")
	}
	var t Token
	if rest, full := strings.CutPrefix(text, prefix); full {
		hash, creds, found := strings.Cut(rest, "::")
		if !found || len(hash) != sha256.Size*2 {
			return Token{}, errors.New("invalid token format")
		}
		if _, err := hex.DecodeString(hash); err != nil {
			return Token{}, errors.New("invalid token CA hash length")
		}
		t.CAHash, text = hash, creds
	}
	if user, password, found := strings.Cut(text, ":"); found {
		t.User, t.Password = user, password
	} else {
		t.Password = text
	}
	if t.Password == "" {
		return Token{}, errors.New("invalid token format")
	}
	return t, nil
}

// IsBootstrap reports whether the token is a kubeadm-style one, which
// `k3s token create` makes and which lets agents join until it expires.
func (t Token) IsBootstrap() bool {
	return t.User == "" && bootstrapForm.MatchString(t.Password)
}

// Credentials are the user and password to send, where defaultUser stands in
// for a user the token does not name.
func (t Token) Credentials(defaultUser string) (user, password string) {
	if t.IsBootstrap() {
		id, secret, _ := strings.Cut(t.Password, ".")
		return id, secret
	}
	if t.User == "" {
		return defaultUser, t.Password
	}
	return t.User, t.Password
}

// CheckCA compares a CA bundle with the hash the token carries, if any.
func (t Token) CheckCA(bundle []byte) error {
	if got := HashCA(bundle); t.CAHash != "" && t.CAHash != got {
		return fmt.Errorf("token CA hash does not match the Cluster CA certificate hash: %s != %s", t.CAHash, got)
	}
	return nil
}

// HashCA is the hash a full token carries.
func HashCA(bundle []byte) string {
	sum := sha256.Sum256(bundle)
	return hex.EncodeToString(sum[:])
}

// Format writes the full form.
func Format(bundle []byte, user, password string) string {
	return prefix + HashCA(bundle) + "::" + user + ":" + password
}

// Random returns n random bytes in hexadecimal.
func Random(n int) string {
	bytes := make([]byte, n)
	rand.Read(bytes) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(bytes)
}

// RandomBootstrap returns a new token of the bootstrap form.
func RandomBootstrap() string {
	return Random(3) + "." + Random(8)
}
