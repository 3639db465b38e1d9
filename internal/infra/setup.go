package infra

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/hashicorp/terraform-exec/tfexec"
)

// init installs providers and modules unless they are installed for exactly
// this configuration, lock file and pair of binaries: it takes longer than a
// plan.
func (t *Terraform) init(ctx context.Context) error {
	print, err := t.fingerprint()
	if err != nil {
		return err
	}
	_, installed := os.Stat(filepath.Join(t.paths.root, ".terraform", "providers"))
	if have, err := os.ReadFile(t.paths.initialised); err == nil && installed == nil && string(have) == print {
		return nil
	}
	if err := dropOwnLock(t.paths.lockFile); err != nil {
		return err
	}
	err = t.tf.Init(ctx, tfexec.Upgrade(false))
	if stop := interrupted(ctx, "terraform init"); stop != nil {
		return stop
	}
	if err != nil {
		return t.explain("terraform init", nil, err)
	}
	// Init writes the lock file, which is part of what identifies it.
	if print, err = t.fingerprint(); err != nil {
		return err
	}
	return renameio.WriteFile(t.paths.initialised, []byte(print), 0o644)
}

// fingerprint identifies everything the result of terraform init depends on.
// Binaries are told apart by place, size and time, because reading them whole
// takes longer than what is saved.
func (t *Terraform) fingerprint() (string, error) {
	sum := sha256.New()
	var files []string
	err := filepath.WalkDir(t.paths.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == ".terraform" {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".tf") || strings.HasSuffix(path, ".tf.json") || path == t.paths.lockFile {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	slices.Sort(files)
	for _, path := range append(files, t.paths.rc) {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n%s", path, len(text), text)
	}
	for _, path := range []string{t.tf.ExecPath(), t.opts.PluginBinary} {
		info, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// dropOwnLock removes provider k3lab from the dependency lock file: a binary
// built anew has the same version but another checksum, which Terraform would
// refuse for ever.
func dropOwnLock(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	file, diags := hclwrite.ParseConfig(text, path, hcl.InitialPos)
	if diags.HasErrors() {
		return diags
	}
	for _, block := range file.Body().Blocks() {
		if block.Type() == "provider" && slices.Equal(block.Labels(), []string{pluginSource}) {
			file.Body().RemoveBlock(block)
		}
	}
	kept := file.Bytes()
	if bytes.Equal(kept, text) {
		return nil
	}
	return renameio.WriteFile(path, kept, 0o644, renameio.WithExistingPermissions())
}
