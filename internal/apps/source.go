package apps

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/renameio/v2"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"helm.sh/helm/v4/pkg/registry"
	repo "helm.sh/helm/v4/pkg/repo/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"sigs.k8s.io/yaml"

	"github.com/k3lab/k3lab/internal/fault"
	lock "github.com/k3lab/k3lab/internal/release"
)

// VendorDir holds charts of a workspace for when their repository cannot be
// reached; k3lab apps vendor writes them.
const VendorDir = "kubernetes/charts"

// mostChart bounds a chart's archive, in bytes.
const mostChart = 32 << 20

// Charts are where the charts of apps come from that are not in the workspace.
type Charts struct {
	Cache  string // a directory
	Vendor string // the workspace's VendorDir, absolute
	Locked lock.Digests
	Get    *lock.Downloader

	mu    sync.Mutex
	found lock.Digests
}

// Found are the digests of charts that are not locked yet, as their repositories
// have them now.
func (c *Charts) Found() lock.Digests {
	c.mu.Lock()
	defer c.mu.Unlock()
	return lock.Digests{}.With(c.found)
}

// chartKey names a chart in the lock file.
func (s *Spec) chartKey() string {
	return "chart/" + strings.TrimSuffix(s.Repository, "/") + "/" + s.Chart + "/" + s.Version
}

func (s *Spec) archive() string { return s.Chart + "-" + s.Version + ".tgz" }

// path has the archive of an app's chart on this computer: from the workspace,
// from the cache, or from the repository. One with another digest than the locked
// one is fault.Invalid.
func (c *Charts) path(ctx context.Context, a *App) (string, error) {
	s := &a.Spec
	locked := c.Locked[s.chartKey()]
	vendored := filepath.Join(c.Vendor, s.archive())
	if sum, err := lock.Digest(vendored); err == nil {
		switch locked {
		case sum:
			return vendored, nil
		case "":
			c.note(s.chartKey(), sum)
			return vendored, nil
		}
		return "", a.otherDigest(VendorDir+"/"+s.archive(), sum, locked)
	}
	if locked != "" {
		cached := filepath.Join(c.Cache, s.Chart+"-"+locked[:16]+".tgz")
		if sum, err := lock.Digest(cached); err == nil && sum == locked {
			return cached, nil
		}
	}
	text, err := c.pull(ctx, a)
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256(text)
	sum := hex.EncodeToString(digest[:])
	switch locked {
	case sum:
	case "":
		c.note(s.chartKey(), sum)
	default:
		return "", a.otherDigest(s.Repository, sum, locked)
	}
	cached := filepath.Join(c.Cache, s.Chart+"-"+sum[:16]+".tgz")
	err = os.MkdirAll(c.Cache, 0o700)
	if err == nil {
		err = renameio.WriteFile(cached, text, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("chart cache: %w", err)
	}
	return cached, nil
}

func (c *Charts) note(key, sum string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found = c.found.With(lock.Digests{key: sum})
}

func (a *App) otherDigest(where, sum, locked string) error {
	return fault.New(fault.Invalid, a.settings(), "find out who has changed the chart; then delete its line in "+lock.LockFile,
		"chart: %s of %s has the SHA-256 %s, but %s is locked", a.Spec.archive(), where, sum, locked)
}

// pull gets the archive from the repository.
func (c *Charts) pull(ctx context.Context, a *App) ([]byte, error) {
	get := c.fromHTTP
	if strings.HasPrefix(a.Spec.Repository, "oci://") {
		get = c.fromOCI
	}
	text, err := get(ctx, a)
	known := new(fault.Error)
	switch {
	case err == nil:
		return text, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("chart: %w", ctx.Err())
	case errors.As(err, &known) && known.Object == a.settings():
		return nil, err
	case errors.As(err, &known):
		return nil, fault.New(known.Kind, a.settings(), "look at repository; k3lab apps vendor keeps charts for when it cannot be reached",
			"repository: %s: %w", known.Object, known.Err)
	default:
		return nil, fault.New(fault.Unreachable, a.settings(), "look at repository; k3lab apps vendor keeps charts for when it cannot be reached",
			"repository: %s: %w", a.Spec.Repository, err)
	}
}

// fromHTTP gets a chart that the index of a repository names.
func (c *Charts) fromHTTP(ctx context.Context, a *App) ([]byte, error) {
	s := &a.Spec
	base := strings.TrimSuffix(s.Repository, "/") + "/"
	text, err := c.Get.Text(ctx, base+"index.yaml")
	if err != nil {
		return nil, err
	}
	index := repo.NewIndexFile()
	if err := yaml.Unmarshal([]byte(text), index); err != nil || len(index.Entries) == 0 {
		return nil, fault.New(fault.Invalid, a.settings(), "look at repository", "repository: %sindex.yaml is not the index of a chart repository", base)
	}
	index.SortEntries()
	versions := index.Entries[s.Chart]
	if len(versions) == 0 {
		return nil, fault.New(fault.Invalid, a.settings(), "look at chart and repository", "chart: %s has no chart %q", s.Repository, s.Chart)
	}
	for _, v := range versions {
		if v.Metadata == nil || v.Version != s.Version || len(v.URLs) == 0 {
			continue
		}
		address, err := repo.ResolveReferenceURL(base, v.URLs[0])
		if err != nil {
			return nil, err
		}
		got, err := c.Get.Text(ctx, address)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256([]byte(got))
		if want := strings.TrimPrefix(v.Digest, "sha256:"); want != "" && want != hex.EncodeToString(sum[:]) {
			return nil, fault.New(fault.Invalid, a.settings(), "again; if it stays, do not trust this repository",
				"chart: %s has not the digest that the repository's index says", address)
		}
		return []byte(got), nil
	}
	return nil, a.noVersion(versions[0].Version)
}

func (a *App) noVersion(newest string) error {
	hint := "look at version"
	if newest != "" {
		hint = "version: " + newest + ", which is the newest"
	}
	return fault.New(fault.Invalid, a.settings(), hint, "version: %s has no %s %s", a.Spec.Repository, a.Spec.Chart, a.Spec.Version)
}

// fromOCI gets a chart that a registry has as an artifact. What arrives has the
// digest and size its manifest says.
func (c *Charts) fromOCI(ctx context.Context, a *App) ([]byte, error) {
	s := &a.Spec
	at, err := remote.NewRepository(strings.TrimSuffix(strings.TrimPrefix(s.Repository, "oci://"), "/") + "/" + s.Chart)
	if err != nil {
		return nil, fault.New(fault.Invalid, a.settings(), "write it as oci://registry/path", "repository: %w", err)
	}
	at.PlainHTTP = loopback(at.Reference.Registry)
	// A tag knows no plus sign; Helm writes it as an underscore.
	_, text, err := oras.FetchBytes(ctx, at, strings.ReplaceAll(s.Version, "+", "_"), oras.DefaultFetchBytesOptions)
	if errors.Is(err, errdef.ErrNotFound) {
		return nil, a.noVersion("")
	}
	if err != nil {
		return nil, err
	}
	var manifest ocispec.Manifest
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&manifest); err != nil {
		return nil, err
	}
	for _, layer := range manifest.Layers {
		if layer.MediaType == registry.ChartLayerMediaType && layer.Size <= mostChart {
			return content.FetchAll(ctx, at, layer)
		}
	}
	return nil, fault.New(fault.Invalid, a.settings(), "look at chart and repository", "chart: %s/%s is no Helm chart", s.Repository, s.Chart)
}

// loopback reports whether a registry is on this computer, where no TLS is needed.
func loopback(registry string) bool {
	host, _, err := net.SplitHostPort(registry)
	if err != nil {
		host = registry
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// checkSource refuses a repository that cannot be one, and a chart without a
// version: the newest would be another one each day.
func (a *App) checkSource() error {
	s := &a.Spec
	if s.Repository == "" {
		if s.Version != "" {
			return fault.New(fault.Invalid, a.settings(), "take it out, or name the repository", "version: a chart in the workspace has its own")
		}
		return nil
	}
	at, err := url.Parse(s.Repository)
	switch {
	case err != nil || at.Host == "" || (at.Scheme != "https" && at.Scheme != "oci" && (at.Scheme != "http" || !loopback(at.Host))):
		return fault.New(fault.Invalid, a.settings(), "https://charts.example.org or oci://registry.example.org/charts", "repository: %q is no address of charts", s.Repository)
	case at.User != nil:
		return fault.New(fault.Invalid, a.settings(), "use a repository that needs none, or keep the chart in the workspace", "repository: it must not hold a password")
	case s.Chart == "" || strings.ContainsAny(s.Chart, `/\`):
		return fault.New(fault.Invalid, a.settings(), "the name it has in the repository", "chart: %q is no chart's name", s.Chart)
	case s.Version == "" || strings.ContainsAny(s.Version, `/\^~<>=* `):
		return fault.New(fault.Invalid, a.settings(), "one exact version, such as 1.2.3", "version: %q is not one version", s.Version)
	}
	return nil
}

// Keep puts the charts of apps into the workspace and returns their files'
// names. Their digests, where they are new, are in Found then.
func (c *Charts) Keep(ctx context.Context, list []*App) ([]string, error) {
	var out []string
	var errs []error
	for _, a := range list {
		if a.Err != nil || a.Spec.Repository == "" {
			errs = append(errs, a.Err)
			continue
		}
		from, err := c.path(ctx, a)
		if err != nil {
			errs = append(errs, fmt.Errorf("app %s: %w", a.Name, err))
			continue
		}
		to := filepath.Join(c.Vendor, a.Spec.archive())
		if from == to {
			continue
		}
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.MkdirAll(c.Vendor, 0o755)
		}
		if err == nil {
			err = renameio.WriteFile(to, text, 0o644)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", VendorDir, err))
			continue
		}
		out = append(out, VendorDir+"/"+a.Spec.archive())
	}
	return out, errors.Join(errs...)
}
