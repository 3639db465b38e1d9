package cluster_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/k3lab/k3lab/internal/cluster"
	"github.com/k3lab/k3lab/internal/fault"
)

const version = "v1.36.3+k3s1"

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// release serves what is in files under the version's path, and counts requests.
func release(t *testing.T, files map[string]string) (url string, requests *int) {
	t.Helper()
	requests = new(int)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*requests++
		body, ok := files[strings.TrimPrefix(r.URL.Path, "/"+version+"/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(srv.Close)
	return srv.URL, requests
}

func TestFindDownloadsOnceAndVerifies(t *testing.T) {
	url, requests := release(t, map[string]string{
		"k3s": "the binary", "k3s-arm64": "the arm binary",
		"sha256sum-amd64.txt": sum("other") + "  k3s-airgap-images-amd64.tar\n" + sum("the binary") + "  k3s\n",
		"sha256sum-arm64.txt": sum("the arm binary") + "  k3s-arm64\n",
	})
	s := cluster.BinarySource{Version: version, CacheDir: t.TempDir(), BaseURL: url}
	for _, arch := range []string{"amd64", "arm64"} {
		for range 2 {
			b, err := s.Find(context.Background(), arch)
			if err != nil {
				t.Fatal(err)
			}
			content, err := os.ReadFile(b.Path)
			if err != nil {
				t.Fatal(err)
			}
			if sum(string(content)) != b.SHA256 {
				t.Errorf("%s: digest %s is not that of the file", arch, b.SHA256)
			}
		}
	}
	if *requests != 4 {
		t.Errorf("%d requests, want two for each architecture", *requests)
	}
}

func TestFindRefuses(t *testing.T) {
	good := map[string]string{"k3s": "the binary", "sha256sum-amd64.txt": sum("the binary") + "  k3s\n"}
	tests := map[string]struct {
		files  map[string]string
		sha256 string
		kind   fault.Kind
		want   string
	}{
		"another binary than published": {
			map[string]string{"k3s": "tampered", "sha256sum-amd64.txt": good["sha256sum-amd64.txt"]}, "", fault.Invalid,
			"v1.36.3+k3s1: k3s release: the SHA-256 of what was downloaded is " + sum("tampered") + ", but " + sum("the binary") +
				" is expected (try: run again; if it stays, do not trust this download)",
		},
		"another binary than pinned": {
			good, sum("pinned"), fault.Invalid,
			"v1.36.3+k3s1: k3s release: the SHA-256 of what was downloaded is " + sum("the binary") + ", but " + sum("pinned") +
				" is expected (try: run again; if it stays, do not trust this download)",
		},
		"no such release": {
			nil, "", fault.Unreachable,
			"k3s v1.36.3+k3s1: release: URL/v1.36.3+k3s1/sha256sum-amd64.txt: 404 Not Found (try: --k3s-binary FILE, where there is no download)",
		},
		"no digest published": {
			map[string]string{"k3s": "x", "sha256sum-amd64.txt": "\n"}, "", fault.Unreachable,
			"k3s v1.36.3+k3s1: release: sha256sum-amd64.txt names no digest for k3s (try: --k3s-binary FILE, where there is no download)",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			url, _ := release(t, tt.files)
			dir := t.TempDir()
			s := cluster.BinarySource{Version: version, CacheDir: dir, BaseURL: url, SHA256: map[string]string{"amd64": tt.sha256}}
			_, err := s.Find(context.Background(), "amd64")
			if err == nil {
				t.Fatal("no error")
			}
			if got := strings.ReplaceAll(err.Error(), url, "URL"); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if fault.KindOf(err) != tt.kind {
				t.Errorf("kind %d, want %d", fault.KindOf(err), tt.kind)
			}
			if left, _ := filepath.Glob(dir + "/*"); len(left) != 0 {
				t.Errorf("what was not verified is kept: %v", left)
			}
		})
	}
}

func TestFindTakesTheGivenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k3s")
	if err := os.WriteFile(path, []byte("mine"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := cluster.BinarySource{Version: version, Override: path}
	b, err := s.Find(context.Background(), "amd64")
	if err != nil || b.Path != path || b.SHA256 != sum("mine") {
		t.Errorf("got %+v, %v", b, err)
	}
	s.SHA256 = map[string]string{"amd64": sum("other")}
	if _, err := s.Find(context.Background(), "amd64"); fault.KindOf(err) != fault.Invalid {
		t.Errorf("wrong checksum: %v, want it refused as invalid", err)
	}
	s.Override = path + ".not-there"
	if _, err := s.Find(context.Background(), "amd64"); fault.KindOf(err) != fault.Invalid {
		t.Errorf("missing file: %v, want it refused as invalid", err)
	}
}
