package remote_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/remote"
	"github.com/k3lab/k3lab/internal/remote/remotetest"
)

func TestMain(m *testing.M) {
	os.Unsetenv("SSH_AUTH_SOCK") // nobody's agent takes part
	os.Exit(m.Run())
}

func soon(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestHostKeyIsPinnedAtFirstContact(t *testing.T) {
	server := remotetest.NewServer(t)
	known := filepath.Join(t.TempDir(), "state", "known_hosts")
	o := server.Options(known)
	dial(t, o)
	pinned, err := os.ReadFile(known)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(server.Address)
	if want := "[127.0.0.1]:" + port + " ssh-ed25519 "; !strings.HasPrefix(string(pinned), want) || strings.Count(string(pinned), "\n") != 1 {
		t.Errorf("pinned %q", pinned)
	}
	dial(t, o)
	if again, err := os.ReadFile(known); err != nil || string(again) != string(pinned) {
		t.Errorf("changed to %q, %v", again, err)
	}

	server.Rebuild()
	_, err = remote.Dial(soon(t, 20*time.Second), o)
	key, _, _, _, parseErr := ssh.ParseAuthorizedKey([]byte(strings.SplitN(string(pinned), " ", 2)[1]))
	if parseErr != nil {
		t.Fatal(parseErr)
	}
	want := regexp.MustCompile(fmt.Sprintf(`^server-1: its SSH host key changed: ssh-ed25519 %s is pinned at %s:1, but %s shows ssh-ed25519 SHA256:\S+ \(try: k3lab ssh --forget server-1, if the machine was rebuilt; if it was not, somebody may be listening\)$`,
		regexp.QuoteMeta(ssh.FingerprintSHA256(key)), regexp.QuoteMeta(known), regexp.QuoteMeta(server.Address)))
	if err == nil || !want.MatchString(unwrapped(err)) || fault.KindOf(err) != fault.Unreachable {
		t.Fatalf("got %v", err)
	}

	if n, err := remote.Forget(known, server.Address); n != 1 || err != nil {
		t.Fatalf("forgot %d, %v", n, err)
	}
	dial(t, o)
	if n, err := remote.Forget(known, "203.0.113.1"); n != 0 || err != nil {
		t.Errorf("forgot %d, %v", n, err)
	}
	if n, err := remote.Forget(known+"-none", server.Address); n != 0 || err != nil {
		t.Errorf("forgot %d, %v", n, err)
	}
}

// unwrapped is the text of the innermost fault.
func unwrapped(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Error()
	}
	return err.Error()
}

func TestManyPinAtOnce(t *testing.T) {
	known := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(known, []byte("# no line end"), 0o600); err != nil {
		t.Fatal(err)
	}
	servers := []*remotetest.Server{remotetest.NewServer(t), remotetest.NewServer(t), remotetest.NewServer(t)}
	var wait sync.WaitGroup
	for i := range 12 {
		wait.Go(func() {
			c, err := remote.Dial(soon(t, 30*time.Second), servers[i%3].Options(known))
			if err != nil {
				t.Error(err)
				return
			}
			c.Close()
		})
	}
	wait.Wait()
	text, err := os.ReadFile(known)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(string(text)), "\n"); len(lines) != 4 || lines[0] != "# no line end" {
		t.Errorf("got %q", lines)
	}
}

func TestDialWaitsForAMachineThatBoots(t *testing.T) {
	server := remotetest.NewServer(t)
	o := server.Options(filepath.Join(t.TempDir(), "known"))
	var mu sync.Mutex
	var told []string
	attempts := 0
	o.OnWait = func(why string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, why)
	}
	refused := freeAddress(t)
	closing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer closing.Close()
	go func() {
		if conn, err := closing.Accept(); err == nil {
			conn.Close()
		}
	}()
	o.Via = func(ctx context.Context, network, address string) (net.Conn, error) {
		switch attempts++; attempts {
		case 1, 2:
			return new(net.Dialer).DialContext(ctx, network, refused)
		case 3:
			return new(net.Dialer).DialContext(ctx, network, closing.Addr().String())
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	dial(t, o)
	// The third attempt ends as the kernel likes it: closed or reset.
	if len(told) != 2 || told[0] != "connection refused" || attempts != 4 {
		t.Errorf("told %q in %d attempts", told, attempts)
	}
}

func TestDialGivesUp(t *testing.T) {
	server := remotetest.NewServer(t)
	known := filepath.Join(t.TempDir(), "known")
	nobody := freeAddress(t)
	other := filepath.Join(t.TempDir(), "other")
	remotetest.WriteKey(t, other)
	tests := []struct {
		name    string
		options func(o *remote.Options)
		context func(t *testing.T) context.Context
		want    string
		kind    fault.Kind
	}{
		{"nobody answers", func(o *remote.Options) { o.Address = nobody }, nil,
			"server-1: ssh " + nobody + ": no answer in time: connection refused (try: k3lab status)", fault.Unreachable},
		{"interrupted", func(o *remote.Options) { o.Address = nobody }, func(t *testing.T) context.Context {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(50*time.Millisecond, cancel)
			return ctx
		}, "server-1: ssh " + nobody + ": context canceled", fault.Interrupted},
		{"the key no longer fits", func(o *remote.Options) { o.KeyFile = other; o.AuthGrace = 300 * time.Millisecond }, func(t *testing.T) context.Context { return soon(t, 20*time.Second) },
			"server-1: ssh " + server.Address + ": the machine accepts no key of " + other + " for user root: ssh: handshake failed: ssh: unable to authenticate," +
				" attempted methods [none publickey], no supported methods remain (try: add " + other + ".pub to .ssh/authorized_keys of root there, or name the right key: access.key_file in ansible/group_vars/all.yaml)", fault.Unreachable},
		{"no key", func(o *remote.Options) { o.KeyFile = "/no/such/key" }, nil,
			"server-1: no usable SSH key: /no/such/key: open /no/such/key: no such file or directory (try: ssh-add, or a key file without a passphrase)", fault.Invalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := server.Options(known)
			test.options(&o)
			ctx := soon(t, 300*time.Millisecond)
			if test.context != nil {
				ctx = test.context(t)
			}
			_, err := remote.Dial(ctx, o)
			if err == nil || !strings.HasSuffix(err.Error(), test.want) || fault.KindOf(err) != test.kind {
				t.Errorf("got %v (kind %d), want %s (kind %d)", err, fault.KindOf(err), test.want, test.kind)
			}
		})
	}
}

func TestKeyThatArrivesLateIsAccepted(t *testing.T) {
	server := remotetest.NewServer(t)
	o := server.Options(filepath.Join(t.TempDir(), "known"))
	o.KeyFile = filepath.Join(t.TempDir(), "late")
	public := remotetest.WriteKey(t, o.KeyFile)
	o.AuthGrace = 20 * time.Second
	o.OnWait = func(why string) {
		if why != "key not accepted yet" {
			t.Errorf("waits for %q", why)
		}
		server.Accept(public)
	}
	dial(t, o)
}

func TestLostLinkIsNoticed(t *testing.T) {
	for name, lose := range map[string]func(*remotetest.Server){
		"cut":    (*remotetest.Server).Cut,
		"silent": (*remotetest.Server).Silence,
	} {
		t.Run(name, func(t *testing.T) {
			server := remotetest.NewServer(t)
			o := server.Options(filepath.Join(t.TempDir(), "known"))
			o.KeepAlive = 100 * time.Millisecond
			c := dial(t, o)
			started := make(chan struct{})
			done := make(chan error, 1)
			go func() {
				done <- c.Run(t.Context(), remote.Cmd{Args: []string{"sh", "-c", "echo x; sleep 60"}, Stdout: signalWriter(started)})
			}()
			<-started
			lose(server)
			select {
			case err := <-done:
				if fault.KindOf(err) != fault.Unreachable || !strings.HasPrefix(err.Error(), "server-1: ssh: connection lost: ") {
					t.Errorf("got %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("not noticed")
			}
			<-c.Lost()
			if err := c.Run(t.Context(), remote.Cmd{Args: []string{"true"}}); fault.KindOf(err) != fault.Unreachable {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

type signalWriter chan struct{}

func (s signalWriter) Write(p []byte) (int, error) {
	close(s)
	return len(p), nil
}

func TestKeyWithoutPassphraseIsNeeded(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "locked")
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	server := remotetest.NewServer(t)
	o := server.Options(filepath.Join(t.TempDir(), "known"))
	o.KeyFile = path
	_, err = remote.Dial(soon(t, 5*time.Second), o)
	if want := "no usable SSH key: " + path + ": has a passphrase"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestPinnedKeyIsAskedFor: a machine with several host keys must show the pinned
// one, whatever this computer would prefer.
func TestPinnedKeyIsAskedFor(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	second, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	server := remotetest.NewServer(t)
	server.AddHostKey(second)
	known := filepath.Join(t.TempDir(), "known")
	pinned := knownhosts.Line([]string{server.Address}, second.PublicKey()) + "\n"
	if err := os.WriteFile(known, []byte(pinned), 0o600); err != nil {
		t.Fatal(err)
	}
	dial(t, server.Options(known))
	if text, err := os.ReadFile(known); err != nil || string(text) != pinned {
		t.Errorf("known hosts became %q, %v", text, err)
	}
}

func TestPutOnAFullDisk(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("k3lab-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("needs to mount: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	content := strings.Repeat("x", 2<<20)
	err := remote.NewLocal().Put(t.Context(), filepath.Join(dir, "file"), strings.NewReader(content), int64(len(content)), 0o600)
	want := "disk full: " + dir + "/file (2 MiB) cannot be written, 0 MiB are free on " + dir + ": no space left on device (try: free space there)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
