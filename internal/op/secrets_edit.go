package op

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/k3lab/k3lab/internal/secrets"
)

// editHint is what a new secrets file is edited from.
const editHint = "# One secret a line, KEY: \"VALUE\". Known keys: k3s_token, ssh_private_key,\n# proxmox_api_tokens: {ENDPOINT: \"user@realm!id=uuid\"}\n"

// EditSecrets writes all secrets in plain into a file that only this user can
// read, in memory where the computer has a place for that, has it edited, and
// encrypts what was changed. The file is gone in the end. again is asked after
// a mistake whether to edit once more; nothing is changed where it says no.
func EditSecrets(dir string, edit func(file string) error, again func(error) bool) (changed bool, err error) {
	store, err := openSecrets(dir)
	if err != nil {
		return false, err
	}
	before, err := store.Text()
	if err != nil {
		return false, err
	}
	private, err := os.MkdirTemp(memory(), "k3lab-secrets-") // mode 0700
	if err != nil {
		return false, fmt.Errorf("secrets: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(private)) }()
	file := filepath.Join(private, "secrets.yaml")
	text := before
	if len(text) == 0 {
		text = []byte(editHint)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return false, fmt.Errorf("secrets: %w", err)
	}
	for {
		if err := edit(file); err != nil {
			return false, err
		}
		after, err := os.ReadFile(file)
		if err != nil {
			return false, fmt.Errorf("secrets: %w", err)
		}
		if bytes.Equal(after, text) {
			return false, nil
		}
		err = store.Replace(before, after)
		if err == nil || errors.Is(err, secrets.ErrChanged) || !again(err) {
			return err == nil, err
		}
	}
}

// memory is a folder whose files never reach a disk, empty where there is none.
func memory() string {
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/dev/shm"} {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
	}
	return ""
}

// SecretNames lists the keys of the secrets there are.
func SecretNames(dir string) ([]string, error) {
	store, err := openSecrets(dir)
	if err != nil {
		return nil, err
	}
	return store.Names(), nil
}

// RekeySecrets encrypts the secrets anew for those whom .sops.yaml names now.
func RekeySecrets(dir string) error {
	store, err := openSecrets(dir)
	if err != nil {
		return err
	}
	return store.Rekey()
}
