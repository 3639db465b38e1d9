package cluster

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/k3lab/k3lab/internal/fault"
)

// Releases is where K3s publishes its release binaries.
const Releases = "https://github.com/k3s-io/k3s/releases/download"

// Binary is a K3s binary on the operator's computer whose digest is known.
type Binary struct {
	Path   string
	SHA256 string // hex
}

// BinarySource finds the K3s binary of a lab.
type BinarySource struct {
	Version  string
	SHA256   map[string]string // architecture → expected digest; may be empty
	Override string            // a file that is used instead of the release, for every architecture
	CacheDir string
	BaseURL  string // default Releases
	Client   *http.Client
}

// Find returns the binary for the architecture: the given file, else the cached
// release, else the release, downloaded and verified. A digest that differs
// from the expected one is fault.Invalid; nothing unverified is kept.
func (s *BinarySource) Find(ctx context.Context, arch string) (Binary, error) {
	want := s.SHA256[arch]
	if s.Override != "" {
		return verified(s.Override, want, "k3s.sha256."+arch)
	}
	path := filepath.Join(s.CacheDir, "k3s-"+s.Version+"-"+arch)
	if want == "" {
		// The digest of the release was written beside the binary when it was verified.
		if kept, err := os.ReadFile(path + ".sha256"); err == nil {
			want = strings.TrimSpace(string(kept))
		}
	}
	if want != "" {
		if b, err := verified(path, want, ""); err == nil {
			return b, nil
		}
	}
	return s.download(ctx, arch, path)
}

func verified(path, want, setting string) (Binary, error) {
	sum, err := digest(path)
	if err != nil {
		return Binary{}, fault.New(fault.Invalid, path, "", "k3s binary: %w", err)
	}
	if want != "" && !strings.EqualFold(sum, want) {
		return Binary{}, fault.New(fault.Invalid, path, "correct "+setting+" in ansible/group_vars/all.yaml or use the right file",
			"k3s binary: its SHA-256 is %s, but %s is expected", sum, strings.ToLower(want))
	}
	return Binary{Path: path, SHA256: sum}, nil
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (s *BinarySource) download(ctx context.Context, arch, path string) (Binary, error) {
	name, sums := "k3s", "sha256sum-"+arch+".txt"
	if arch != "amd64" {
		name += "-" + arch
	}
	want := s.SHA256[arch]
	if want == "" {
		var err error
		if want, err = s.publishedDigest(ctx, sums, name); err != nil {
			return Binary{}, s.failed(err)
		}
	}
	body, err := s.get(ctx, name)
	if err != nil {
		return Binary{}, s.failed(err)
	}
	defer body.Close()
	if err := os.MkdirAll(s.CacheDir, 0o700); err != nil {
		return Binary{}, fmt.Errorf("cache: %w", err)
	}
	f, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o755))
	if err != nil {
		return Binary{}, fmt.Errorf("cache: %w", err)
	}
	defer func() { _ = f.Cleanup() }()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, h), body); err != nil {
		return Binary{}, s.failed(err)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); !strings.EqualFold(sum, want) {
		return Binary{}, fault.New(fault.Invalid, s.Version, "run again; if it stays, do not trust this download",
			"k3s release: the SHA-256 of what was downloaded is %s, but %s is expected", sum, want)
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return Binary{}, fmt.Errorf("cache: %w", err)
	}
	if err := renameio.WriteFile(path+".sha256", []byte(want+"\n"), 0o644); err != nil {
		return Binary{}, fmt.Errorf("cache: %w", err)
	}
	return Binary{Path: path, SHA256: strings.ToLower(want)}, nil
}

func (s *BinarySource) failed(err error) error {
	return fault.New(fault.Unreachable, "k3s "+s.Version, "--k3s-binary FILE, where there is no download", "release: %w", err)
}

func (s *BinarySource) publishedDigest(ctx context.Context, sums, name string) (string, error) {
	body, err := s.get(ctx, sums)
	if err != nil {
		return "", err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) == 2 && f[1] == name {
			return f[0], nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", err
	}
	return "", fmt.Errorf("%s names no digest for %s", sums, name)
}

func (s *BinarySource) get(ctx context.Context, name string) (io.ReadCloser, error) {
	base, client := s.BaseURL, s.Client
	if base == "" {
		base = Releases
	}
	if client == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSHandshakeTimeout, transport.ResponseHeaderTimeout = 15*time.Second, 30*time.Second
		client = &http.Client{Transport: transport}
	}
	address := base + "/" + url.PathEscape(s.Version) + "/" + name
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %s", address, resp.Status)
	}
	return resp.Body, nil
}
