package op

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/goccy/go-yaml"
	"github.com/google/renameio/v2"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/workspace"
)

// computer is what this computer uses instead of downloads, noted in
// .k3lab/computer.yaml so that every later command in the workspace does too.
type computer struct {
	K3sBinary      string `yaml:"k3s_binary,omitempty"`
	K3sBinaryDir   string `yaml:"k3s_binary_dir,omitempty"`
	K3sReleases    string `yaml:"k3s_releases,omitempty"` // a mirror of the releases
	K3sChannels    string `yaml:"k3s_channels,omitempty"` // a mirror of the channel server
	ProviderMirror string `yaml:"provider_mirror,omitempty"`
	Terraform      string `yaml:"terraform,omitempty"`
}

const computerFile = ".k3lab/computer.yaml"

// fromEnvironment is what the environment asks for.
func fromEnvironment() (computer, error) {
	c := computer{
		K3sBinary: os.Getenv("K3LAB_K3S_BINARY"), K3sBinaryDir: os.Getenv("K3LAB_K3S_BINARY_DIR"),
		K3sReleases: os.Getenv("K3LAB_K3S_RELEASES"), K3sChannels: os.Getenv("K3LAB_K3S_CHANNELS"),
		ProviderMirror: os.Getenv("K3LAB_PROVIDER_MIRROR"), Terraform: os.Getenv("K3LAB_TERRAFORM"),
	}
	for _, path := range []*string{&c.K3sBinary, &c.K3sBinaryDir, &c.ProviderMirror} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return c, err
		}
		*path = absolute
	}
	return c, nil
}

// readComputer returns what to use here: the environment's, else what is noted.
func readComputer(d workspace.Dir) (computer, error) {
	c, err := fromEnvironment()
	if err != nil {
		return c, err
	}
	var noted computer
	text, err := os.ReadFile(d.Path(computerFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	if err := yaml.Unmarshal(text, &noted); err != nil {
		return c, fault.New(fault.Invalid, computerFile, "delete it", "it cannot be read: %w", err)
	}
	if c.K3sBinary == "" && c.K3sBinaryDir == "" {
		c.K3sBinary, c.K3sBinaryDir = noted.K3sBinary, noted.K3sBinaryDir
	}
	c.K3sReleases, c.K3sChannels = cmp.Or(c.K3sReleases, noted.K3sReleases), cmp.Or(c.K3sChannels, noted.K3sChannels)
	c.ProviderMirror, c.Terraform = cmp.Or(c.ProviderMirror, noted.ProviderMirror), cmp.Or(c.Terraform, noted.Terraform)
	return c, nil
}

// note writes down what the environment asks for, and says so in a sentence. It
// does nothing where the environment asks for nothing.
func (c computer) note(d workspace.Dir) (string, error) {
	if c == (computer{}) {
		return "", nil
	}
	text, err := yaml.Marshal(c)
	if err != nil {
		return "", err
	}
	if err := renameio.WriteFile(d.Path(computerFile), text, 0o600); err != nil {
		return "", fmt.Errorf("workspace: %w", err)
	}
	return "What this computer uses instead of downloads is noted in " + computerFile + ".", nil
}
