package secrets

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/google/renameio/v2"

	"github.com/k3lab/k3lab/internal/fault"
)

// identities are the user's age keys, from the first place that has any of
// those sops itself looks in: SOPS_AGE_KEY, SOPS_AGE_KEY_FILE, keys.txt in the
// user's configuration folder.
type identities struct {
	recipients []string // the public halves
	file       string   // where they are, or would be made
	made       bool     // by this process
	other      bool     // there are keys whose public half only a plugin or a command knows
	err        error    // why a file that is there could not be used
}

// keyFile is where sops keeps a user's age keys.
func keyFile() (string, error) {
	if f := os.Getenv("SOPS_AGE_KEY_FILE"); f != "" {
		return f, nil
	}
	config, err := os.UserConfigDir()
	if xdg := os.Getenv("XDG_CONFIG_HOME"); runtime.GOOS == "darwin" && xdg != "" {
		config, err = xdg, nil // which sops honours there, too
	}
	return filepath.Join(config, "sops", "age", "keys.txt"), err
}

func findIdentities() identities {
	ids := identities{other: os.Getenv("SOPS_AGE_KEY_CMD") != ""}
	ids.file, ids.err = keyFile()
	if ids.add(os.Getenv("SOPS_AGE_KEY"), "SOPS_AGE_KEY"); len(ids.recipients) > 0 || ids.err != nil {
		return ids
	}
	text, err := os.ReadFile(ids.file)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			ids.err = err
		}
		return ids
	}
	ids.add(string(text), ids.file)
	return ids
}

// add takes the keys of a text as age-keygen writes it. A line that is none is
// an error that does not quote it.
func (ids *identities) add(text, where string) {
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, "AGE-PLUGIN-"):
			ids.other = true
			continue
		}
		for _, word := range strings.Fields(line) {
			recipient, ok := recipientOf(word)
			if !ok {
				ids.err = fmt.Errorf("%s: it holds something that is no age key", where)
				return
			}
			ids.recipients = append(ids.recipients, recipient)
		}
	}
}

func recipientOf(identity string) (string, bool) {
	if x, err := age.ParseX25519Identity(identity); err == nil {
		return x.Recipient().String(), true
	}
	if h, err := age.ParseHybridIdentity(identity); err == nil {
		return h.Recipient().String(), true
	}
	return "", false
}

// ensureIdentity returns the user's age keys and makes the first one where there
// is none. Of several processes that do so at once one makes it.
func ensureIdentity() (identities, error) {
	ids := findIdentities()
	switch {
	case len(ids.recipients) > 0:
		return ids, nil
	case ids.err != nil:
		return ids, fault.New(fault.Invalid, FileName, "", "age key: %w", ids.err)
	case ids.other:
		return ids, fault.New(fault.Invalid, FileName, "name the recipients in "+ruleFileName,
			"age key: what the public half of your key is only its plugin or command knows")
	}
	err := makeKeyFile(ids.file)
	if made := err == nil; made || errors.Is(err, fs.ErrExist) {
		ids = findIdentities()
		if ids.made = made; len(ids.recipients) == 0 {
			return ids, fault.New(fault.Invalid, ids.file, "age-keygen >> "+ids.file, "it holds no age key")
		}
		return ids, nil
	}
	return ids, fmt.Errorf("age key: %w", err)
}

// makeKeyFile makes an age key as age-keygen does. It never replaces a file:
// what is encrypted for the key in it could not be read again.
func makeKeyFile(path string) error {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o600), renameio.IgnoreUmask())
	if err != nil {
		return err
	}
	defer f.Cleanup() //nolint:errcheck // the file itself is in place or was never made
	_, err = fmt.Fprintf(f, "# created: %s\n# public key: %s\n%s\n", time.Now().UTC().Format(time.RFC3339), id.Recipient(), id)
	if err := errors.Join(err, f.Sync()); err != nil {
		return err
	}
	return os.Link(f.Name(), path) // whole, and only where there is none
}
