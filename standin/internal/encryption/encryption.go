// Package encryption makes the key under which Secrets are encrypted in the
// datastore, and reports on it.
package encryption

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"crypto/rand"

	"github.com/k3lab/k3lab/standin/internal/datadir"
)

const (
	file    = "encryption-config.json"
	keyName = "aescbckey"
)

// Ensure writes a configuration with a new key unless there is one.
func Ensure(dir datadir.Dir) error {
	path := dir.Cred(file)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	key := make([]byte, 32)
	rand.Read(key) // never fails: crypto/rand ends the program instead
	type object = map[string]any
	data, err := json.Marshal(object{
		"kind": "EncryptionConfiguration", "apiVersion": "apiserver.config.k8s.io/v1",
		"resources": []object{{
			"resources": []string{"secrets"},
			"providers": []object{
				{"aescbc": object{"keys": []object{{"name": keyName, "secret": base64.StdEncoding.EncodeToString(key)}}}},
				{"identity": object{}},
			},
		}},
	})
	if err != nil {
		return err
	}
	return datadir.WriteFile(path, data, 0o600)
}

// Status writes what `k3s secrets-encrypt status` shows.
func Status(w io.Writer, dir datadir.Dir) error {
	if _, err := os.Stat(dir.Cred(file)); errors.Is(err, os.ErrNotExist) {
		_, err := fmt.Fprintln(w, "Encryption Status: Disabled, no configuration file found")
		return err
	} else if err != nil {
		return err
	}
	fmt.Fprintln(w, "Encryption Status: Enabled")
	fmt.Fprintln(w, "Current Rotation Stage: start")
	fmt.Fprintln(w, "Server Encryption Hashes: All hashes match")
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "Active\tKey Type\tName")
	fmt.Fprintln(table, "------\t--------\t----")
	fmt.Fprintf(table, " *\tAES-CBC\t%s\n", keyName)
	return table.Flush()
}
