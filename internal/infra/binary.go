package infra

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/hc-install/product"
	"github.com/hashicorp/hc-install/releases"

	"github.com/k3lab/k3lab/internal/fault"
)

// pinnedTerraform is the release fetched where none is installed.
const pinnedTerraform = "1.11.4"

// findBinary returns the path of the terraform or tofu to run: the one
// configured, else one from PATH, else the fallback, else the pinned release,
// downloaded once and verified by its signature.
func findBinary(ctx context.Context, opts Options) (string, error) {
	if opts.Binary != "" {
		path, err := exec.LookPath(opts.Binary)
		if err != nil {
			return "", fault.New(fault.Invalid, opts.Binary, "", "the terraform binary asked for cannot be run: %w", err)
		}
		return filepath.Abs(path)
	}
	for _, name := range []string{"terraform", "tofu"} {
		if path, err := exec.LookPath(name); err == nil {
			return filepath.Abs(path)
		}
	}
	if opts.Fallback != "" {
		path, err := exec.LookPath(opts.Fallback)
		if err != nil {
			return "", fault.New(fault.Invalid, "K3LAB_TOFU", "", "cannot be run: %w", err)
		}
		return filepath.Abs(path)
	}
	return download(ctx, opts.CacheDir)
}

func download(ctx context.Context, cache string) (string, error) {
	dir := filepath.Join(cache, "terraform-"+pinnedTerraform)
	path := filepath.Join(dir, "terraform")
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		return path, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	// Unpacked beside its place and moved there whole, so that an interrupted
	// download is never taken for a binary.
	part, err := os.MkdirTemp(cache, "terraform-part-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(part)
	release := &releases.ExactVersion{
		Product:    product.Terraform,
		Version:    version.Must(version.NewVersion(pinnedTerraform)),
		InstallDir: part,
		Timeout:    5 * time.Minute,
	}
	if _, err := release.Install(ctx); err != nil {
		if stop := interrupted(ctx, "the download"); stop != nil {
			return "", stop
		}
		return "", fault.New(fault.Unreachable, "terraform",
			"install terraform or tofu, or name one: K3LAB_TOFU=/path/to/tofu",
			"neither terraform nor tofu is in PATH, and release %s cannot be downloaded: %w", pinnedTerraform, err)
	}
	if err := os.Rename(part, dir); err != nil {
		return "", err
	}
	return path, nil
}
