package infra

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/google/renameio/v2"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/step"
)

// keptBackups is how many copies of the state are kept.
const keptBackups = 20

// backup writes a copy of the state as it is before an apply, encrypted to the
// lab's recipients, and removes the oldest. It is asked of Terraform, so a state
// kept elsewhere is copied as well.
func (t *Terraform) backup(ctx context.Context, _ step.Writer) error {
	state, err := t.tf.StatePull(ctx)
	if stop := interrupted(ctx, "terraform state pull"); stop != nil {
		return stop
	}
	if err != nil {
		return t.explain("terraform state pull", nil, err)
	}
	if strings.TrimSpace(state) == "" {
		return nil // nothing made yet
	}
	if len(t.opts.Recipients) == 0 {
		return fault.New(fault.Invalid, "secrets.sops.yaml", "k3lab init",
			"names no age recipient, so the state cannot be copied before it is changed")
	}
	var sealed bytes.Buffer
	enc, err := age.Encrypt(&sealed, t.opts.Recipients...)
	if err != nil {
		return fmt.Errorf("encrypt the copy of the state: %w", err)
	}
	if _, err := enc.Write([]byte(state)); err != nil {
		return fmt.Errorf("encrypt the copy of the state: %w", err)
	}
	if err := enc.Close(); err != nil {
		return fmt.Errorf("encrypt the copy of the state: %w", err)
	}
	if err := os.MkdirAll(t.paths.backups, 0o700); err != nil {
		return err
	}
	name := time.Now().UTC().Format("20060102T150405.000000Z") + ".tfstate.age"
	if err := renameio.WriteFile(filepath.Join(t.paths.backups, name), sealed.Bytes(), 0o600); err != nil {
		return err
	}
	return prune(t.paths.backups)
}

func prune(dir string) error {
	copies, err := filepath.Glob(filepath.Join(dir, "*.tfstate.age"))
	if err != nil {
		return err
	}
	slices.Sort(copies)
	for _, path := range copies[:max(0, len(copies)-keptBackups)] {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}
