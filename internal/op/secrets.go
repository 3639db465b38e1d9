package op

import (
	"strings"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/secrets"
	"github.com/k3lab/k3lab/internal/workspace"
)

// GetSecret returns the secret under a key, k3s_token or proxmox_api_tokens.home.
func GetSecret(dir, key string) (string, error) {
	store, err := openSecrets(dir)
	if err != nil {
		return "", err
	}
	v, err := store.Get(strings.Split(key, ".")...)
	return v.Reveal(), err
}

// SetSecret writes the secret under a key.
func SetSecret(dir, key, text string) error {
	if text == "" {
		return fault.New(fault.Invalid, key, "", "the secret is empty")
	}
	store, err := openSecrets(dir)
	if err != nil {
		return err
	}
	return store.Set(secrets.NewValue(text), strings.Split(key, ".")...)
}

func openSecrets(dir string) (*secrets.Store, error) {
	d, err := workspace.Find(dir)
	if err != nil {
		return nil, err
	}
	return secrets.Open(d.Root())
}
