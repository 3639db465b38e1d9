package remote_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/k3lab/k3lab/internal/remote/remotetest"
)

// BenchmarkPut compares the two ways to send 64 MiB to OpenSSH. The library's
// own server stands in where there is none, for the first way only.
func BenchmarkPut(b *testing.B) {
	content := bytes.Repeat([]byte("k3lab tests throughput "), (64<<20)/23)
	b.Run("cat", func(b *testing.B) {
		o := openSSH(b)
		c := dial(b, o)
		path := filepath.Join(b.TempDir(), "file")
		b.SetBytes(int64(len(content)))
		for b.Loop() {
			if err := c.Put(b.Context(), path, bytes.NewReader(content), int64(len(content)), 0o600); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cat to the library", func(b *testing.B) {
		c := dial(b, remotetest.NewServer(b).Options(filepath.Join(b.TempDir(), "known")))
		path := filepath.Join(b.TempDir(), "file")
		b.SetBytes(int64(len(content)))
		for b.Loop() {
			if err := c.Put(b.Context(), path, bytes.NewReader(content), int64(len(content)), 0o600); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sftp", func(b *testing.B) {
		o := openSSH(b)
		key, err := os.ReadFile(o.KeyFile)
		if err != nil {
			b.Fatal(err)
		}
		signer, err := ssh.ParsePrivateKey(key)
		if err != nil {
			b.Fatal(err)
		}
		dial(b, o) // waits until it answers
		conn, err := ssh.Dial("tcp", o.Address, &ssh.ClientConfig{
			Config: ssh.Config{Ciphers: []string{ssh.CipherAES128GCM}},
			User:   o.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		})
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		s, err := sftp.NewClient(conn, sftp.UseConcurrentWrites(true))
		if err != nil && strings.Contains(err.Error(), "subsystem") {
			b.Skip(err)
		}
		if err != nil {
			b.Fatal(err)
		}
		path := filepath.Join(b.TempDir(), "file")
		b.SetBytes(int64(len(content)))
		for b.Loop() {
			f, err := s.Create(path)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(f, bytes.NewReader(content)); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
			f.Close()
		}
	})
}
