package remotetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/remote"
)

func itoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// Conformance is the suite every Runner passes. It uses printf, cat, stat and
// sh of the machine that open reaches; open is called once for each test.
func Conformance(t *testing.T, open func(t *testing.T) remote.Runner) {
	tests := []struct {
		name string
		run  func(t *testing.T, r remote.Runner)
	}{
		{"arguments arrive as they are", arguments},
		{"stdout and stderr are separate", outputs},
		{"stdin arrives whole", stdin},
		{"an exit code is an ExitError", exitCode},
		{"a missing program is exit code 127", missing},
		{"a command may leave stdin unread", unread},
		{"cancelling ends the command", cancelling},
		{"put writes content and mode", putWrites},
		{"put replaces", putReplaces},
		{"put of less than promised leaves the old file", putShort},
		{"put from a failing reader leaves the old file", putFailing},
		{"dial reaches a service on the machine", dialing},
		{"nothing runs after close", afterClose},
		{"many commands run at once", many},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := open(t)
			t.Cleanup(func() { r.Close() })
			test.run(t, r)
		})
	}
}

func output(t *testing.T, r remote.Runner, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := r.Run(t.Context(), remote.Cmd{Args: args, Stdout: &out, Root: true}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func arguments(t *testing.T, r remote.Runner) {
	args := []string{"plain", "", "two words", "it's", `"double"`, "$HOME", "`id`", "a\nb", "*", `back\slash`, "ü€", "-n", "a;b|c&d"}
	want := strings.Join(args, "|") + "|"
	if diff := cmp.Diff(want, output(t, r, append([]string{"printf", "%s|"}, args...)...)); diff != "" {
		t.Error(diff)
	}
}

func outputs(t *testing.T, r remote.Runner) {
	var out, errs bytes.Buffer
	cmd := remote.Cmd{Args: []string{"sh", "-c", "echo out; echo err >&2"}, Stdout: &out, Stderr: &errs}
	if err := r.Run(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"out\n", "err\n"}, []string{out.String(), errs.String()}); diff != "" {
		t.Error(diff)
	}
}

func stdin(t *testing.T, r remote.Runner) {
	in := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB: more than any window
	var out bytes.Buffer
	if err := r.Run(t.Context(), remote.Cmd{Args: []string{"cat"}, Stdin: bytes.NewReader(in), Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(in, out.Bytes()) {
		t.Errorf("%d bytes went in, %d others came back", len(in), out.Len())
	}
}

func exitCode(t *testing.T, r remote.Runner) {
	args := []string{"sh", "-c", "echo why >&2; exit 3"}
	err := r.Run(t.Context(), remote.Cmd{Args: args})
	var exit *remote.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("got %v, want an ExitError", err)
	}
	if diff := cmp.Diff(&remote.ExitError{Args: args, Code: 3, Stderr: "why\n"}, exit); diff != "" {
		t.Error(diff)
	}
	if want := "sh -c echo why >&2; exit 3: exit status 3: why"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func missing(t *testing.T, r remote.Runner) {
	var exit *remote.ExitError
	if err := r.Run(t.Context(), remote.Cmd{Args: []string{"/no/such/program"}}); !errors.As(err, &exit) || exit.Code != 127 {
		t.Errorf("got %v, want exit code 127", err)
	}
}

func unread(t *testing.T, r remote.Runner) {
	in := bytes.NewReader(make([]byte, 8<<20))
	if err := r.Run(t.Context(), remote.Cmd{Args: []string{"sh", "-c", "exit 0"}, Stdin: in}); err != nil {
		t.Error(err)
	}
}

func cancelling(t *testing.T, r remote.Runner) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	child := &firstLine{whole: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		done <- r.Run(ctx, remote.Cmd{Args: []string{"sh", "-c", "sleep 60 & echo $!; wait"}, Stdout: child, Root: true})
	}()
	<-child.whole
	cancel(cause)
	select {
	case err := <-done:
		if !errors.Is(err, cause) {
			t.Errorf("got %v, want %v", err, cause)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the command still runs")
	}
	// What it started has ended too.
	gone := remote.Cmd{Args: []string{"sh", "-c", "for i in $(seq 50); do kill -0 " + child.text + " || exit 0; sleep 0.1; done; exit 1"}, Root: true}
	if err := r.Run(t.Context(), gone); err != nil {
		t.Errorf("its child still runs: %v", err)
	}
}

// firstLine tells when a line has arrived.
type firstLine struct {
	whole chan struct{}
	text  string
}

func (f *firstLine) Write(p []byte) (int, error) {
	f.text += string(p)
	if line, _, whole := strings.Cut(f.text, "\n"); whole {
		f.text = line
		close(f.whole)
	}
	return len(p), nil
}

func putWrites(t *testing.T, r remote.Runner) {
	path := filepath.Join(t.TempDir(), "new dir", "it's")
	content := strings.Repeat("content\x00\n", 1<<17)
	if err := r.Put(t.Context(), path, strings.NewReader(content), int64(len(content)), 0o640); err != nil {
		t.Fatal(err)
	}
	if output(t, r, "cat", path) != content {
		t.Error("other content came back")
	}
	if got := output(t, r, "stat", "-c", "%a", path); got != "640\n" {
		t.Errorf("mode is %s", got)
	}
}

func putReplaces(t *testing.T, r remote.Runner) {
	path := filepath.Join(t.TempDir(), "file")
	for _, content := range []string{"a longer one", "short", ""} {
		if err := r.Put(t.Context(), path, strings.NewReader(content), int64(len(content)), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := output(t, r, "cat", path); got != content {
			t.Errorf("got %q, want %q", got, content)
		}
	}
}

func putShort(t *testing.T, r remote.Runner) {
	path := filepath.Join(t.TempDir(), "file")
	if err := r.Put(t.Context(), path, strings.NewReader("old"), 3, 0o600); err != nil {
		t.Fatal(err)
	}
	err := r.Put(t.Context(), path, strings.NewReader("newer"), 7, 0o600)
	want := "write " + path + ": exit status 1: got 5 of 7 bytes"
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	onlyOld(t, r, path)
}

func putFailing(t *testing.T, r remote.Runner) {
	path := filepath.Join(t.TempDir(), "file")
	if err := r.Put(t.Context(), path, strings.NewReader("old"), 3, 0o600); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	err := r.Put(t.Context(), path, io.MultiReader(strings.NewReader("new"), iotest.ErrReader(broken)), 7, 0o600)
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	onlyOld(t, r, path)
}

func onlyOld(t *testing.T, r remote.Runner, path string) {
	t.Helper()
	if got := output(t, r, "cat", path); got != "old" {
		t.Errorf("the file says %q", got)
	}
	if got := output(t, r, "ls", "-A", filepath.Dir(path)); got != "file\n" {
		t.Errorf("left behind: %q", got)
	}
}

func dialing(t *testing.T, r remote.Runner) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			io.Copy(conn, conn) //nolint:errcheck // ends with the connection
			conn.Close()
		}
	}()
	if f, ok := r.(*Fake); ok {
		f.HandleDial("tcp", l.Addr().String(), func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
		})
	}
	conn, err := r.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	back := make([]byte, 5)
	if _, err := io.ReadFull(conn, back); err != nil || string(back) != "hello" {
		t.Errorf("got %q, %v", back, err)
	}
}

func afterClose(t *testing.T, r remote.Runner) {
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Run(t.Context(), remote.Cmd{Args: []string{"cat"}}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
}

func many(t *testing.T, r remote.Runner) {
	results := make(chan string, 20)
	for i := range cap(results) {
		go func() {
			var out bytes.Buffer
			if err := r.Run(t.Context(), remote.Cmd{Args: []string{"printf", "%s", strconv.Itoa(i)}, Stdout: &out}); err != nil {
				results <- err.Error()
				return
			}
			results <- strconv.Itoa(i) + "=" + out.String()
		}()
	}
	got := map[string]bool{}
	for range cap(results) {
		got[<-results] = true
	}
	for i := range cap(results) {
		if want := strconv.Itoa(i) + "=" + strconv.Itoa(i); !got[want] {
			t.Errorf("missing %s in %v", want, got)
		}
	}
}
