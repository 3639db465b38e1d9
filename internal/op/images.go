package op

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/desired"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/fleet"
	"github.com/k3lab/k3lab/internal/release"
)

// settings reads what the settings only refer to: secrets, files, archives.
func (s *supplies) settings(ctx context.Context, lab *config.Lab, arch string) (desired.Inputs, error) {
	in := desired.Inputs{Secrets: map[string]string{}, Files: map[string]string{}}
	for _, key := range lab.K3s.Registries.Secrets() {
		text, err := s.secret(key)
		if err != nil {
			return in, err
		}
		in.Secrets[key] = text
	}
	for _, c := range lab.K3s.Registries.Configs {
		if c.CAFile == "" {
			continue
		}
		text, err := os.ReadFile(s.path(c.CAFile))
		if err != nil {
			return in, settingsFault(c.CAFile, err)
		}
		if !strings.Contains(string(text), "-----BEGIN CERTIFICATE-----") {
			return in, fault.New(fault.Invalid, c.CAFile, "put the CA's certificate there, as PEM", "k3s.registries: it holds no certificate")
		}
		if strings.Contains(string(text), "PRIVATE KEY-----") {
			return in, fault.New(fault.Invalid, c.CAFile, "leave only the certificate in it", "k3s.registries: it holds a private key")
		}
		in.Files[c.CAFile] = string(text)
	}
	for _, name := range lab.K3s.Images {
		a, err := s.image(ctx, name, arch)
		if err != nil {
			return in, err
		}
		in.Images = append(in.Images, a)
	}
	return in, nil
}

// settingsFault is a file that the settings name and that cannot be read.
func settingsFault(file string, err error) error {
	var cause *fs.PathError
	if errors.As(err, &cause) {
		err = cause.Err // the path is said already
	}
	return fault.New(fault.Invalid, file, "correct its path in "+settingsFile, "%w", err)
}

// image is one of the settings' archives. That of the release is not downloaded to
// know its digest.
func (s *supplies) image(ctx context.Context, name, arch string) (desired.Archive, error) {
	if name != config.ImagesAirgap {
		f, err := s.file(name)
		if err != nil {
			return desired.Archive{}, err
		}
		return desired.Archive{Name: name, SHA256: f.SHA256, Size: sizeOf(f.Path)}, nil
	}
	bundle := release.ImagesName(arch)
	sum, err := s.source.Digest(ctx, arch, bundle)
	return desired.Archive{Name: bundle, SHA256: sum, Size: sizeOf(s.source.CachePath(bundle))}, err
}

// file is an archive of the user's, and its digest.
func (s *supplies) file(name string) (release.File, error) {
	return s.once("file "+name, func() (release.File, error) {
		path := s.path(name)
		sum, err := release.Digest(path)
		if err != nil {
			return release.File{}, settingsFault(name, err)
		}
		return release.File{Path: path, SHA256: sum}, nil
	})
}

func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// archive is the file of an archive on this computer, downloaded where it is the
// release's.
func (s *supplies) archive(ctx context.Context, lab *config.Lab, arch string, a *converger.Archive) (fleet.Supply, error) {
	supply := fleet.Supply{To: a.Source, SHA256: a.SHA256, At: a.Path}
	for _, name := range lab.K3s.Images {
		is, err := s.image(ctx, name, arch)
		if err != nil {
			return supply, err
		}
		switch {
		case is.SHA256 != a.SHA256:
			continue
		case name != config.ImagesAirgap:
			supply.From = s.path(name)
			return supply, nil
		}
		f, err := s.once(is.Name, func() (release.File, error) { return s.source.Find(ctx, arch, is.Name) })
		supply.From = f.Path
		return supply, err
	}
	return supply, fmt.Errorf("%s: the settings name no such archive", a.Path)
}

// roomForImages refuses archives that the machine's disk cannot hold.
func roomForImages(m *config.Machine, facts converger.Facts, state converger.State, found []converger.Change) error {
	free, known := facts.DiskFreeMiB[desired.ImagesDir]
	if !known {
		return nil
	}
	var need int64
	for _, r := range state.Resources {
		for _, c := range found {
			if r.Archive != nil && c.Resource == r.ID() && c.Action == "install" {
				need += r.Archive.Size
			}
		}
	}
	if need>>20 < int64(free) || need == 0 {
		return nil
	}
	return fault.New(fault.Failed, m.Name, "k3lab ssh "+m.Name+" -- sudo du -xh -d 3 / | sort -h; or more disk_gib in terraform/vars/nodes.yaml",
		"k3s.images: %d MiB are to be copied to %s, where %d MiB are free", need>>20, desired.ImagesDir, free)
}
