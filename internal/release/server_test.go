package release_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/k3lab/k3lab/internal/release"
)

const version = "v1.36.3+k3s1"

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// program is the start of an ELF file for an architecture, and some content.
func program(arch, content string) string {
	machine := map[string]uint16{"amd64": 62, "arm64": 183, "riscv64": 243}[arch]
	h := make([]byte, 64)
	copy(h, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(h[16:], 2)
	binary.LittleEndian.PutUint16(h[18:], machine)
	binary.LittleEndian.PutUint32(h[20:], 1)
	binary.LittleEndian.PutUint16(h[52:], 64)
	return string(h) + content
}

// server serves a release over TLS as GitHub does, ranges included, and plays
// faults: each rule is for one request of a file and then used up.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	files    map[string]string
	faults   map[string][]answer
	requests []string // "k3s", "k3s from 100"
}

// answer answers a request in another way; file is what should be served.
type answer func(w http.ResponseWriter, r *http.Request, file string)

func serve(t *testing.T, files map[string]string) *server {
	t.Helper()
	s := &server{files: files, faults: map[string][]answer{}}
	s.Server = httptest.NewTLSServer(s)
	t.Cleanup(s.Close)
	return s
}

// fails has the next requests of a file go wrong.
func (s *server) fails(name string, with ...answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[name] = append(s.faults[name], with...)
}

func (s *server) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutPrefix(r.URL.Path, "/"+version+"/")
	if !ok {
		name = strings.TrimPrefix(r.URL.Path, "/")
	}
	request := name
	if rng := r.Header.Get("Range"); rng != "" {
		request += " from " + strings.TrimSuffix(strings.TrimPrefix(rng, "bytes="), "-")
	}
	s.mu.Lock()
	s.requests = append(s.requests, request)
	file, there := s.files[name]
	var with answer
	if queue := s.faults[name]; len(queue) > 0 {
		with, s.faults[name] = queue[0], queue[1:]
	}
	s.mu.Unlock()
	switch {
	case with != nil:
		with(w, r, file)
	case !there:
		http.NotFound(w, r)
	default:
		whole(w, r, file)
	}
}

// whole answers as a server without faults.
func whole(w http.ResponseWriter, r *http.Request, file string) {
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(file))
}

// cut ends the connection after n bytes of what was asked for.
func cut(n int) answer {
	return func(w http.ResponseWriter, r *http.Request, file string) {
		begin(w, r, file, n)
		panic(http.ErrAbortHandler)
	}
}

// hang sends n bytes and then nothing, until the client gives up.
func hang(n int) answer {
	return func(w http.ResponseWriter, r *http.Request, file string) {
		begin(w, r, file, n)
		<-r.Context().Done()
	}
}

func begin(w http.ResponseWriter, r *http.Request, file string, n int) {
	from := 0
	if rng := r.Header.Get("Range"); rng != "" {
		from, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(rng, "bytes="), "-"))
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(file)-1, len(file)))
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(file)-from))
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	_, _ = w.Write([]byte(file[from:min(from+n, len(file))]))
	_ = http.NewResponseController(w).Flush()
}

// status answers with a status and a text.
func status(code int) answer {
	return func(w http.ResponseWriter, _ *http.Request, _ string) { http.Error(w, "no", code) }
}

// page answers with a web page, as the network of a hotel does.
func page(contentType, text string) answer {
	return func(w http.ResponseWriter, _ *http.Request, _ string) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write([]byte(text))
	}
}

// other serves another content in place of the file.
func other(content string) answer {
	return func(w http.ResponseWriter, r *http.Request, _ string) { whole(w, r, content) }
}

// noRanges answers as a server that knows no ranges.
func noRanges(w http.ResponseWriter, r *http.Request, file string) {
	r.Header.Del("Range")
	whole(w, r, file)
}

// redirect sends the client elsewhere.
func redirect(to string) answer {
	return func(w http.ResponseWriter, r *http.Request, _ string) { http.Redirect(w, r, to, http.StatusFound) }
}

// downloader trusts the server and waits for nothing.
func (s *server) downloader() release.Downloader {
	return release.Downloader{Client: s.Client(), Stall: 5 * time.Second, Retry: time.Millisecond}
}

// two are releases of both architectures with their lists of digests.
func two() map[string]string {
	files := map[string]string{
		"k3s":                             program("amd64", strings.Repeat("amd64 ", 1000)),
		"k3s-arm64":                       program("arm64", strings.Repeat("arm64 ", 1000)),
		"k3s-airgap-images-amd64.tar.zst": "images for amd64",
		"k3s-airgap-images-arm64.tar.zst": "images for arm64",
	}
	for _, arch := range []string{"amd64", "arm64"} {
		list := ""
		for _, name := range []string{release.ImagesName(arch), release.BinaryName(arch)} {
			list += sum(files[name]) + "  " + name + "\n"
		}
		files["sha256sum-"+arch+".txt"] = list
	}
	return files
}

// authority is the certificate the server's own is signed with, as PEM.
func authority(s *server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}
