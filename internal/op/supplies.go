package op

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/release"
	"github.com/k3lab/k3lab/internal/report"
)

// supplies is what machines are given: the token and the K3s binary, which is
// looked for once for each architecture.
type supplies struct {
	token  string
	source *release.Source
	secret func(key string) (string, error)
	path   func(relative string) string // of the workspace
	mu     sync.Mutex
	found  map[string]func() (release.File, error)
}

func (s *session) newSupplies(token string) (*supplies, error) {
	source, err := s.releases()
	return &supplies{
		token: token, source: source, path: s.dir.Path, found: map[string]func() (release.File, error){},
		secret: func(key string) (string, error) {
			v, err := s.secrets.Get(strings.Split(key, ".")...)
			return v.Reveal(), err
		},
	}, err
}

// releases is where the lab's version of K3s comes from on this computer.
func (s *session) releases() (*release.Source, error) {
	locked, err := release.ReadDigests(s.dir.Path(release.LockFile))
	if err != nil {
		return nil, err
	}
	source := &release.Source{
		Version: s.lab.K3s.Version, Locked: locked, Binary: s.opts.K3sBinary, CacheDir: s.dir.Cache(),
		BaseURL: s.computer.K3sReleases, Get: release.Downloader{Progress: s.downloading()},
	}
	if source.Binary == "" {
		source.Binary, source.BinaryDir = s.computer.K3sBinary, s.computer.K3sBinaryDir
	}
	for name, url := range map[string]string{"K3LAB_K3S_RELEASES": s.computer.K3sReleases, "K3LAB_K3S_CHANNELS": s.computer.K3sChannels} {
		if url != "" && !strings.HasPrefix(url, "https://") {
			return nil, fault.New(fault.Invalid, name, "an address with https://", "%s is not encrypted, so anybody on the way could change what arrives", url)
		}
	}
	return source, nil
}

// downloading tells of downloads in steps of ten percent.
func (s *session) downloading() func(name string, done, total int64) {
	if s.opts.Reporter == nil {
		return nil
	}
	var mu sync.Mutex
	told := map[string]int64{}
	return func(name string, done, total int64) {
		if total <= 0 {
			return
		}
		mu.Lock()
		tenth := done * 10 / total
		news := tenth > told[name]
		told[name] = tenth
		mu.Unlock()
		if news {
			s.opts.Reporter.Report(report.Event{
				Kind: report.Progress, Object: "this computer",
				Message: fmt.Sprintf("downloading %s %s: %d %% of %d MiB", name, s.lab.K3s.Version, tenth*10, total>>20),
			})
		}
	}
}

// binary is the K3s binary for the architecture, on this computer.
func (s *supplies) binary(ctx context.Context, arch string) (release.File, error) {
	return s.once(arch, func() (release.File, error) { return s.source.FindBinary(ctx, arch) })
}

// once looks for something the first time it is asked for.
func (s *supplies) once(what string, find func() (release.File, error)) (release.File, error) {
	s.mu.Lock()
	found, ok := s.found[what]
	if !ok {
		found = sync.OnceValues(find)
		s.found[what] = found
	}
	s.mu.Unlock()
	return found()
}

// digest is the SHA-256 of that binary, without a download.
func (s *supplies) digest(ctx context.Context, arch string) (string, error) {
	if s.source.Given() {
		f, err := s.binary(ctx, arch)
		return f.SHA256, err
	}
	return s.source.Digest(ctx, arch, release.BinaryName(arch))
}

// verifyGiven verifies the binary that is used instead of the release, for the
// architecture of every node; where the release is used it does nothing.
func (s *supplies) verifyGiven(ctx context.Context, lab *config.Lab) error {
	if !s.source.Given() || !lab.Manages(config.ManageK3s) {
		return nil
	}
	for _, m := range lab.Nodes() {
		if _, err := s.binary(ctx, m.Arch); err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	return nil
}
