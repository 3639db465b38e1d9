package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/google/renameio/v2"

	"github.com/k3lab/k3lab/internal/fault"
)

// identities are the user's age keys, found where sops itself looks for them.
type identities struct {
	list []*age.X25519Identity
	file string
	made bool
	err  error // why a file that is there could not be used
}

// keyFile is where sops keeps a user's age keys.
func keyFile() string {
	if f := os.Getenv("SOPS_AGE_KEY_FILE"); f != "" {
		return f
	}
	config := os.Getenv("XDG_CONFIG_HOME")
	if config == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = "/root"
		}
		config = filepath.Join(home, ".config")
	}
	return filepath.Join(config, "sops", "age", "keys.txt")
}

func findIdentities() identities {
	ids := identities{file: keyFile()}
	if text := os.Getenv("SOPS_AGE_KEY"); text != "" {
		ids.add(text)
	}
	text, err := os.ReadFile(ids.file)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			ids.err = err
		}
		return ids
	}
	ids.add(string(text))
	return ids
}

func (ids *identities) add(text string) {
	parsed, err := age.ParseIdentities(strings.NewReader(text))
	if err != nil {
		ids.err = fmt.Errorf("%s: it holds no age keys", ids.file)
		return
	}
	for _, p := range parsed {
		if x, ok := p.(*age.X25519Identity); ok {
			ids.list = append(ids.list, x)
		}
	}
}

func (ids identities) recipients() string {
	var list []string
	for _, id := range ids.list {
		list = append(list, id.Recipient().String())
	}
	return strings.Join(list, ",")
}

// createIdentity makes the user's first age key.
func createIdentity() (identities, error) {
	ids := findIdentities() // another process may have made one meanwhile
	if len(ids.list) > 0 {
		return ids, nil
	}
	if ids.err != nil {
		return ids, fault.New(fault.Invalid, ids.file, "", "age key: %w", ids.err)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return ids, fmt.Errorf("age key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(ids.file), 0o700); err != nil {
		return ids, fmt.Errorf("age key: %w", err)
	}
	text := fmt.Sprintf("# created: %s\n# public key: %s\n%s\n", time.Now().UTC().Format(time.RFC3339), id.Recipient(), id)
	if err := renameio.WriteFile(ids.file, []byte(text), 0o600); err != nil {
		return ids, fmt.Errorf("age key: %w", err)
	}
	ids.list, ids.made = []*age.X25519Identity{id}, true
	return ids, nil
}
