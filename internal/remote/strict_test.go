package remote_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/k3lab/k3lab/internal/remote"
	"github.com/k3lab/k3lab/internal/remote/remotetest"
)

// shownKey dials strictly and returns what must be accepted first.
func shownKey(ctx context.Context, t *testing.T, o remote.Options) *remote.UnknownKeyError {
	t.Helper()
	_, err := remote.Dial(ctx, o)
	var unknown *remote.UnknownKeyError
	if !errors.As(err, &unknown) {
		t.Fatalf("error %v, want an unknown host key", err)
	}
	return unknown
}

func TestStrictPinsNothingByItself(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s := remotetest.NewServer(t)
	pins := filepath.Join(t.TempDir(), "known_hosts")
	o := s.Options(pins)
	o.Strict = true
	unknown := shownKey(ctx, t, o)
	if _, err := os.Stat(pins); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a key was pinned that nobody has accepted: %v", err)
	}
	if unknown.Type() != "ssh-ed25519" || !strings.HasPrefix(unknown.Fingerprint(), "SHA256:") || unknown.Address != o.Address {
		t.Errorf("shown: %s %s at %s", unknown.Type(), unknown.Fingerprint(), unknown.Address)
	}
	if err := unknown.Pin(pins); err != nil {
		t.Fatal(err)
	}
	c, err := remote.Dial(ctx, o)
	if err != nil {
		t.Fatalf("after it was accepted: %v", err)
	}
	c.Close()
	s.Rebuild()
	if _, err := remote.Dial(ctx, o); err == nil || !strings.Contains(err.Error(), "its SSH host key changed") {
		t.Errorf("another key at an address that is pinned: %v", err)
	}
}

// TestKeysTheUserKnows: what ssh has accepted once is not asked for again, under
// the address or the name by which it was.
func TestKeysTheUserKnows(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s := remotetest.NewServer(t)
	dir := t.TempDir()
	probe := filepath.Join(dir, "probe")
	o := s.Options(filepath.Join(dir, "known_hosts"))
	o.Strict = true
	if err := shownKey(ctx, t, o).Pin(probe); err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(probe)
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ := strings.Cut(string(line), " ")
	_, port, err := net.SplitHostPort(o.Address)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hashed := knownhosts.HashHostname(knownhosts.Normalize(o.Address))
	named := knownhosts.Normalize(net.JoinHostPort("server.lan", port))
	tests := map[string]struct {
		file, alias string
		known       bool
	}{
		"by its address":              {write("address", string(line)), "", true},
		"by its address, hashed":      {write("hashed", hashed+" "+key), "", true},
		"by its name":                 {write("name", named+" "+key), "server.lan", true},
		"by a name that was not said": {write("name", named+" "+key), "", false},
		"not at all":                  {filepath.Join(dir, "none"), "server.lan", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := o
			o.KnownHosts, o.Known, o.Alias = filepath.Join(t.TempDir(), "known_hosts"), []string{tt.file}, tt.alias
			if !tt.known {
				if unknown := shownKey(ctx, t, o); unknown == nil {
					t.Error("the key is taken for known")
				}
				return
			}
			c, err := remote.Dial(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			if pinned, err := os.ReadFile(o.KnownHosts); err != nil || string(pinned) != string(line) {
				t.Errorf("pinned %q (%v), want %q", pinned, err, line)
			}
		})
	}
	t.Run("another key", func(t *testing.T) {
		s.Rebuild()
		o := o
		o.KnownHosts, o.Known = filepath.Join(t.TempDir(), "known_hosts"), []string{filepath.Join(dir, "address")}
		_, err := remote.Dial(ctx, o)
		if err == nil || !strings.Contains(err.Error(), "its SSH host key changed") || !strings.Contains(err.Error(), "ssh-keygen -R ") {
			t.Errorf("error %v, want that the key changed, and how ssh forgets it", err)
		}
	})
}
