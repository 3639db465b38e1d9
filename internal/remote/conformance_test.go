package remote_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/k3lab/k3lab/internal/remote"
	"github.com/k3lab/k3lab/internal/remote/remotetest"
)

// needRoot skips where Root commands would ask sudo.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: commands run as root without sudo")
	}
}

func TestLocalConformance(t *testing.T) {
	needRoot(t)
	remotetest.Conformance(t, func(*testing.T) remote.Runner { return remote.NewLocal() })
}

func TestSSHConformance(t *testing.T) {
	server := remotetest.NewServer(t)
	known := filepath.Join(t.TempDir(), "known_hosts")
	remotetest.Conformance(t, func(t *testing.T) remote.Runner { return dial(t, server.Options(known)) })
}

func dial(t testing.TB, o remote.Options) *remote.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := remote.Dial(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestOpenSSHConformance runs the suite against the system's sshd, or the one
// K3LAB_SSHD names.
func TestOpenSSHConformance(t *testing.T) {
	needRoot(t)
	o := openSSH(t)
	remotetest.Conformance(t, func(t *testing.T) remote.Runner { return dial(t, o) })
}

func openSSH(t testing.TB) remote.Options {
	t.Helper()
	sshd := os.Getenv("K3LAB_SSHD")
	if sshd == "" {
		sshd = "/usr/sbin/sshd"
	}
	if _, err := os.Stat(sshd); err != nil {
		t.Skip("needs sshd: ", err)
	}
	if _, err := os.Stat("/run/sshd"); err != nil {
		if err := os.Mkdir("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove("/run/sshd") })
	}
	// sshd wants every parent of these files to be root's and closed to others,
	// which the temporary directory is not: StrictModes is off.
	dir := t.TempDir()
	public := remotetest.WriteKey(t, filepath.Join(dir, "id"))
	remotetest.WriteKey(t, filepath.Join(dir, "host"))
	if err := os.WriteFile(filepath.Join(dir, "authorized"), ssh.MarshalAuthorizedKey(public), 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("ListenAddress 127.0.0.1\nPort %s\nHostKey %s/host\nAuthorizedKeysFile %s/authorized\n"+
		"StrictModes no\nUsePAM no\nSubsystem sftp internal-sftp\nPermitRootLogin prohibit-password\nPidFile none\n", port, dir, dir)
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(sshd, "-D", "-e", "-f", filepath.Join(dir, "config"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return remote.Options{
		Machine: "server-1", Address: address, User: "root",
		KeyFile: filepath.Join(dir, "id"), KnownHosts: filepath.Join(dir, "known_hosts"),
	}
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
