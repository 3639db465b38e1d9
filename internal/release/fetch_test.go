package release_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/release"
)

const content = "0123456789abcdefghijklmnopqrstuvwxyz"

// TestFetchGetsThere plays faults that a download outlives.
func TestFetchGetsThere(t *testing.T) {
	const all = "k3s"
	tests := map[string]struct {
		part     string // left by an earlier download
		faults   []answer
		requests []string
	}{
		"nothing wrong":             {"", nil, []string{all}},
		"the connection is cut":     {"", []answer{cut(10), cut(5)}, []string{all, "k3s from 10", "k3s from 15"}},
		"it hangs in the middle":    {"", []answer{hang(20)}, []string{all, "k3s from 20"}},
		"it hangs before it begins": {"", []answer{hang(0)}, []string{all, all}},
		"the server is busy":        {"", []answer{status(503), status(429), status(502)}, []string{all, all, all, all}},
		"more cuts than tries":      {"", []answer{cut(1), cut(1), cut(1), cut(1), cut(1), cut(1)}, []string{all, "k3s from 1", "k3s from 2", "k3s from 3", "k3s from 4", "k3s from 5", "k3s from 6"}},
		"a part is gone on with":    {content[:12], nil, []string{"k3s from 12"}},
		"of a part that is whole":   {content, nil, []string{"k3s from 36", all}},
		"of a part of another file": {"other bytes", nil, []string{"k3s from 11", all}},
		"of a part that is longer":  {content + content, nil, []string{"k3s from 72", all}},
		"the server has no ranges":  {content[:12], []answer{noRanges}, []string{"k3s from 12"}},
		"another range than asked": {content[:12], []answer{func(w http.ResponseWriter, r *http.Request, file string) {
			r.Header.Set("Range", "bytes=3-")
			whole(w, r, file)
		}}, []string{"k3s from 12", all}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, map[string]string{"k3s": content})
			s.fails("k3s", tt.faults...)
			path := filepath.Join(t.TempDir(), "cache", "k3s")
			if tt.part != "" {
				write(t, path+".part", tt.part)
			}
			d := s.downloader()
			d.Stall = 300 * time.Millisecond
			if err := d.Fetch(context.Background(), s.URL+"/k3s", path, sum(content), 0o755); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.requests, s.asked()); d != "" {
				t.Errorf("requests (-want +got):\n%s", d)
			}
			if d := cmp.Diff(map[string]string{"k3s": content}, in(t, filepath.Dir(path))); d != "" {
				t.Errorf("the cache (-want +got):\n%s", d)
			}
		})
	}
}

// TestFetchFails plays faults that end a download: what is said, and what is left.
func TestFetchFails(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	tests := map[string]struct {
		faults []answer
		kind   fault.Kind
		want   string
		left   map[string]string
	}{
		"it hangs again and again": {
			[]answer{hang(12), hang(0), hang(0), hang(0), hang(0)}, fault.Unreachable,
			"nothing arrived for 300ms (try: again: it goes on where it ended)", map[string]string{"k3s.part": content[:12]},
		},
		"it is cut again and again": {
			[]answer{cut(12), cut(0), cut(0), cut(0), cut(0)}, fault.Unreachable,
			"the connection ended after 12 bytes of 36 bytes (try: again: it goes on where it ended)", map[string]string{"k3s.part": content[:12]},
		},
		"no such release": {
			[]answer{status(404)}, fault.Invalid,
			"the answer is 404 Not Found (try: look at k3s.version in ansible/group_vars/all.yaml: is there such a release?)", map[string]string{},
		},
		"forbidden": {
			[]answer{status(403)}, fault.Unreachable,
			"the answer is 403 Forbidden (try: K3LAB_K3S_BINARY=FILE, or K3LAB_K3S_RELEASES=URL of a mirror, where there is no download)", map[string]string{},
		},
		"a proxy wants a password": {
			[]answer{status(407)}, fault.Unreachable,
			"the answer is 407 Proxy Authentication Required (try: put user and password into HTTPS_PROXY)", map[string]string{},
		},
		"the server stays broken": {
			[]answer{status(500), status(500), status(500), status(500)}, fault.Unreachable,
			"the answer is 500 Internal Server Error (try: again: it goes on where it ended)", map[string]string{},
		},
		"a page to sign in": {
			[]answer{page("text/html; charset=utf-8", "<!doctype html><title> Hotel Wi-Fi\n</title>")}, fault.Unreachable,
			`HOST answers with a web page ("Hotel Wi-Fi") instead of the file: that is the page of a network to sign in to, or of a proxy ` +
				"(try: sign in to this network or set HTTPS_PROXY, then again)", map[string]string{},
		},
		"a page that says it is a file": {
			[]answer{page("application/octet-stream", "  <HTML><body>blocked")}, fault.Unreachable,
			"HOST answers with a web page instead of the file: that is the page of a network to sign in to, or of a proxy " +
				"(try: sign in to this network or set HTTPS_PROXY, then again)", map[string]string{},
		},
		"another content": {
			[]answer{other("tampered")}, fault.Invalid,
			"the SHA-256 of what arrived is " + sum("tampered") + ", but " + sum(content) +
				" is expected (try: again; if it stays, do not trust this download: compare with the digest on the release's page)", map[string]string{},
		},
		"sent on without encryption": {
			[]answer{redirect(plain.URL + "/k3s")}, fault.Unreachable,
			"it redirects to http://PLAIN, which is not encrypted (try: K3LAB_K3S_BINARY=FILE, or K3LAB_K3S_RELEASES=URL of a mirror, where there is no download)", map[string]string{},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, map[string]string{"k3s": content})
			s.fails("k3s", tt.faults...)
			path := filepath.Join(t.TempDir(), "k3s")
			d := release.Trusting(s.Client())
			d.Stall, d.Retry = 300*time.Millisecond, time.Millisecond
			err := d.Fetch(context.Background(), s.URL+"/k3s", path, sum(content), 0o755)
			if err == nil {
				t.Fatal("no error")
			}
			got := strings.NewReplacer(s.URL, "URL", strings.TrimPrefix(s.URL, "https://"), "HOST", strings.TrimPrefix(plain.URL, "http://"), "PLAIN").Replace(err.Error())
			if want := "URL/k3s: " + tt.want; got != want || fault.KindOf(err) != tt.kind {
				t.Errorf("kind %d, got\n%s\nwant kind %d,\n%s", fault.KindOf(err), got, tt.kind, want)
			}
			if d := cmp.Diff(tt.left, in(t, filepath.Dir(path))); d != "" {
				t.Errorf("left behind (-want +got):\n%s", d)
			}
		})
	}
}

func TestFetchKeepsWhatIsThere(t *testing.T) {
	s := serve(t, map[string]string{"k3s": "tampered"})
	path := filepath.Join(t.TempDir(), "k3s")
	write(t, path, "the version before")
	d := s.downloader()
	if err := d.Fetch(context.Background(), s.URL+"/k3s", path, sum(content), 0o755); err == nil {
		t.Error("no error")
	}
	if d := cmp.Diff(map[string]string{"k3s": "the version before"}, in(t, filepath.Dir(path))); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestFetchFollowsRedirects because a release's files are on another host.
func TestFetchFollowsRedirects(t *testing.T) {
	s := serve(t, map[string]string{"asset": content})
	s.fails("k3s", redirect("/asset?signature=s3cret"), redirect("/asset?signature=s3cret"))
	s.fails("asset", cut(10), status(403))
	path := filepath.Join(t.TempDir(), "k3s")
	d := s.downloader()
	err := d.Fetch(context.Background(), s.URL+"/k3s", path, sum(content), 0o755)
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v, want an error without the signed address", err)
	}
	s.fails("k3s", redirect("/asset?signature=new"))
	if err := d.Fetch(context.Background(), s.URL+"/k3s", path, sum(content), 0o755); err != nil {
		t.Error(err)
	}
	want := []string{"k3s", "asset", "k3s from 10", "asset from 10", "k3s from 10", "asset from 10"}
	if d := cmp.Diff(want, s.asked()); d != "" {
		t.Errorf("requests (-want +got):\n%s", d)
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	s := serve(t, map[string]string{"k3s": content})
	s.fails("k3s", hang(10))
	path := filepath.Join(t.TempDir(), "k3s")
	ctx, cancel := context.WithCancel(context.Background())
	d := s.downloader()
	d.Progress = func(_ string, done, total int64) {
		if done == 10 && total == int64(len(content)) {
			cancel()
		}
	}
	began := time.Now()
	if err := d.Fetch(ctx, s.URL+"/k3s", path, sum(content), 0o755); !errors.Is(err, context.Canceled) || fault.KindOf(err) != fault.Interrupted {
		t.Errorf("got %v, want it cancelled", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	if d := cmp.Diff(map[string]string{"k3s.part": content[:10]}, in(t, filepath.Dir(path))); d != "" {
		t.Errorf("left behind (-want +got):\n%s", d)
	}
}

func TestFetchOnceForSeveralAtOnce(t *testing.T) {
	s := serve(t, map[string]string{"k3s": content})
	path := filepath.Join(t.TempDir(), "k3s")
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			d := s.downloader()
			if err := d.Fetch(context.Background(), s.URL+"/k3s", path, sum(content), 0o755); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if d := cmp.Diff([]string{"k3s"}, s.asked()); d != "" {
		t.Errorf("requests (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string]string{"k3s": content}, in(t, filepath.Dir(path))); d != "" {
		t.Errorf("the cache (-want +got):\n%s", d)
	}
}

func TestFetchTrustsNoStranger(t *testing.T) {
	s := serve(t, map[string]string{"k3s": content})
	d := release.Downloader{Retry: time.Millisecond}
	err := d.Fetch(context.Background(), s.URL+"/k3s", filepath.Join(t.TempDir(), "k3s"), sum(content), 0o755)
	if err == nil || fault.KindOf(err) != fault.Unreachable || !strings.Contains(err.Error(), "certificate") || !strings.HasSuffix(err.Error(), "(try: if a proxy of yours looks into TLS: SSL_CERT_FILE=its CA)") {
		t.Errorf("got %v, want the certificate refused", err)
	}
	if asked := s.asked(); asked != nil {
		t.Errorf("asked for %v all the same", asked)
	}
}

// TestFetchSaysThatTheDiskIsFull on a file system of one page.
func TestFetchSaysThatTheDiskIsFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a small file system needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("k3lab", dir, "tmpfs", 0, "size=8k"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	defer func() { _ = unix.Unmount(dir, 0) }()
	big := strings.Repeat(content, 1000)
	s := serve(t, map[string]string{"k3s": big})
	d := s.downloader()
	err := d.Fetch(context.Background(), s.URL+"/k3s", filepath.Join(dir, "k3s"), sum(big), 0o755)
	want := s.URL + "/k3s: disk full: write " + dir + "/k3s.part: no space left on device (try: make room there, then again)"
	if err == nil || err.Error() != want || fault.KindOf(err) != fault.Failed {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if d := cmp.Diff(map[string]string{}, in(t, dir)); d != "" {
		t.Errorf("left behind (-want +got):\n%s", d)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// in is what is in a folder, by name.
func in(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(text)
	}
	return out
}
