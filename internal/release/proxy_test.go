package release_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/k3lab/k3lab/internal/release"
)

// TestFetchObeysTheProxy in a process of its own: the proxy settings are read from
// the environment once. The name can be resolved by the proxy alone.
func TestFetchObeysTheProxy(t *testing.T) {
	const address = "https://example.com/k3s"
	if path := os.Getenv("K3LAB_TEST_FETCH"); path != "" {
		var d release.Downloader
		if err := d.Fetch(context.Background(), address, path, sum(content), 0o755); err != nil {
			t.Fatal(err)
		}
		return
	}
	s := serve(t, map[string]string{"k3s": content})
	var tunnels atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != "example.com:443" {
			http.Error(w, "only tunnels to example.com", http.StatusForbidden)
			return
		}
		tunnels.Add(1)
		to, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "https://"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer to.Close()
		from, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer from.Close()
		_, _ = io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(to, from) }()
		_, _ = io.Copy(from, to)
	}))
	defer proxy.Close()
	dir := t.TempDir()
	ca, path := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "k3s")
	write(t, ca, authority(s))
	cmd := exec.Command(os.Args[0], "-test.run=^TestFetchObeysTheProxy$")
	cmd.Env = append(os.Environ(), "K3LAB_TEST_FETCH="+path, "HTTPS_PROXY="+proxy.URL, "NO_PROXY=", "no_proxy=", "SSL_CERT_FILE="+ca)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != content || tunnels.Load() != 1 {
		t.Errorf("got %q, %v through %d tunnels, want the file through one", got, err, tunnels.Load())
	}
}
