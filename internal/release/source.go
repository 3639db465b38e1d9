package release

import (
	"context"
	"debug/elf"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/k3lab/k3lab/internal/fault"
)

// Releases is where K3s publishes its releases.
const Releases = "https://github.com/k3s-io/k3s/releases/download"

// File is a file on this computer whose digest is known and right.
type File struct {
	Path   string
	SHA256 string // hex
}

// Source finds what one version of K3s consists of. Safe for concurrent use.
type Source struct {
	Version   string
	Locked    Digests // of k3lab.lock
	Binary    string  // a file that is used instead of the release's binary
	BinaryDir string  // a folder of such files, k3s-VERSION or k3s-VERSION-ARCH
	CacheDir  string
	BaseURL   string // default Releases
	Get       Downloader

	mu        sync.Mutex
	published map[string]func() (map[string]string, error) // by architecture
}

// BinaryName is the release's binary for an architecture, as Go names it.
func BinaryName(arch string) string {
	if arch == "amd64" {
		return "k3s"
	}
	return "k3s-" + arch
}

// ImagesName is the release's bundle of all images K3s itself needs.
func ImagesName(arch string) string { return "k3s-airgap-images-" + arch + ".tar.zst" }

// Given reports whether binaries are given on this computer, instead of the release's.
func (s *Source) Given() bool { return s.Binary != "" || s.BinaryDir != "" }

// FindBinary returns the binary for the architecture: the given one, else the
// release's, downloaded unless it is in the cache.
func (s *Source) FindBinary(ctx context.Context, arch string) (File, error) {
	if s.Given() {
		return s.given(arch)
	}
	f, err := s.Find(ctx, arch, BinaryName(arch))
	if err != nil {
		return File{}, err
	}
	return f, checkProgram(f.Path, arch)
}

// Digest is the locked SHA-256 of one of the release's files, else the published one.
func (s *Source) Digest(ctx context.Context, arch, name string) (string, error) {
	if locked := s.Locked[Key(s.Version, name)]; locked != "" {
		return locked, nil
	}
	return s.Published(ctx, arch, name)
}

// Published is the SHA-256 that the release publishes of one of its files.
func (s *Source) Published(ctx context.Context, arch, name string) (string, error) {
	s.mu.Lock()
	if s.published == nil {
		s.published = map[string]func() (map[string]string, error){}
	}
	list, ok := s.published[arch]
	if !ok {
		list = sync.OnceValues(func() (map[string]string, error) { return s.list(ctx, arch) })
		s.published[arch] = list
	}
	s.mu.Unlock()
	sums, err := list()
	if err != nil {
		return "", err
	}
	if sums[name] == "" {
		return "", fault.New(fault.Invalid, s.url(sumsName(arch)), "", "the release publishes no digest of %s", name)
	}
	return sums[name], nil
}

// Find returns one of the release's files for the architecture.
func (s *Source) Find(ctx context.Context, arch, name string) (File, error) {
	want, err := s.Digest(ctx, arch, name)
	if err != nil {
		return File{}, err
	}
	f := File{s.CachePath(name), want}
	if sum, err := Digest(f.Path); err == nil && sum == want {
		return f, nil
	}
	return f, s.explained(s.Get.Fetch(ctx, s.url(name), f.Path, want, 0o755), name)
}

// CachePath is where one of the release's files is, once it is downloaded.
func (s *Source) CachePath(name string) string {
	return filepath.Join(s.CacheDir, "k3s", s.Version, name)
}

// explained says of another digest than the locked one what that means.
func (s *Source) explained(err error, name string) error {
	f := new(fault.Error)
	if errors.As(err, &f) && f.Kind == fault.Invalid && s.Locked[Key(s.Version, name)] != "" && strings.Contains(f.Error(), "SHA-256") {
		return fault.New(fault.Invalid, f.Object, "again; if it stays, somebody has changed the release or your connection: find out who before you delete the line from "+LockFile,
			"%s: %w", LockFile, f.Err)
	}
	return err
}

func sumsName(arch string) string { return "sha256sum-" + arch + ".txt" }

func (s *Source) list(ctx context.Context, arch string) (map[string]string, error) {
	text, err := s.Get.Text(ctx, s.url(sumsName(arch)))
	if err != nil {
		return nil, err
	}
	sums := map[string]string{}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 && hexDigest.MatchString(f[0]) {
			sums[strings.TrimPrefix(f[1], "*")] = f[0]
		}
	}
	return sums, nil
}

func (s *Source) url(name string) string {
	base := s.BaseURL
	if base == "" {
		base = Releases
	}
	return strings.TrimSuffix(base, "/") + "/" + url.PathEscape(s.Version) + "/" + name
}

// given is the binary that is used instead of the release's. Where that one is
// locked, it must be the same.
func (s *Source) given(arch string) (File, error) {
	path := s.Binary
	if path == "" {
		path = s.inFolder(arch)
	}
	sum, err := Digest(path)
	if err != nil {
		hint := ""
		if errors.Is(err, fs.ErrNotExist) && s.Binary == "" {
			hint = "put the release's " + BinaryName(arch) + " there under that name, or unset K3LAB_K3S_BINARY_DIR"
		}
		var failed *fs.PathError
		if errors.As(err, &failed) {
			err = failed.Err // the path is said already
		}
		return File{}, fault.New(fault.Invalid, path, hint, "k3s binary: %w", err)
	}
	if want := s.Locked[Key(s.Version, BinaryName(arch))]; want != "" && sum != want {
		return File{}, fault.New(fault.Invalid, path, "use the release's own file",
			"k3s binary: its SHA-256 is %s, but %s says %s for %s %s", sum, LockFile, want, BinaryName(arch), s.Version)
	}
	return File{path, sum}, checkProgram(path, arch)
}

func (s *Source) inFolder(arch string) string {
	plain := filepath.Join(s.BinaryDir, "k3s-"+s.Version)
	if _, err := os.Stat(plain + "-" + arch); err == nil || arch != "amd64" {
		return plain + "-" + arch
	}
	return plain
}

// checkProgram refuses a file that is no program for the architecture: on the
// machine it would only fail to start.
func checkProgram(path, arch string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fault.New(fault.Invalid, path, "use the K3s release's binary", "k3s binary: it is no program for Linux")
	}
	defer f.Close()
	is := map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[f.Machine]
	if is == "" {
		is = f.Machine.String()
	}
	if is == arch {
		return nil
	}
	return fault.New(fault.Invalid, path, "K3LAB_K3S_BINARY_DIR=a folder with k3s-VERSION-amd64 and k3s-VERSION-arm64, or correct arch in terraform/vars/nodes.yaml",
		"k3s binary: it is for %s, but there are %s machines", is, arch)
}
