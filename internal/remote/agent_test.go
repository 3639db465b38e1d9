package remote_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/k3lab/k3lab/internal/remote/remotetest"
)

// withAgent runs an SSH agent that holds so many keys, and returns the last one.
func withAgent(t *testing.T, keys int) ed25519.PrivateKey {
	t.Helper()
	ring := agent.NewKeyring()
	var last ed25519.PrivateKey
	for range keys {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if err := ring.Add(agent.AddedKey{PrivateKey: private}); err != nil {
			t.Fatal(err)
		}
		last = private
	}
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(ring, conn) //nolint:errcheck // ends with the connection
		}
	}()
	t.Setenv("SSH_AUTH_SOCK", socket)
	return last
}

func publicOf(t *testing.T, private ed25519.PrivateKey) ssh.PublicKey {
	t.Helper()
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return public
}

func TestKeyOfTheAgent(t *testing.T) {
	private := withAgent(t, 1)
	server := remotetest.NewServer(t)
	server.Accept(publicOf(t, private))
	o := server.Options(filepath.Join(t.TempDir(), "known"))
	dial(t, o) // the key of the file is refused, the agent's is not
	o.KeyFile = ""
	dial(t, o)
}

// TestAgentWithManyKeys: a machine takes six attempts at most, so the agent's
// key that the settings name is the first of them.
func TestAgentWithManyKeys(t *testing.T) {
	private := withAgent(t, 9)
	server := remotetest.NewServer(t)
	server.Accept(publicOf(t, private))
	o := server.Options(filepath.Join(t.TempDir(), "known"))
	o.KeyFile = filepath.Join(t.TempDir(), "locked")
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.KeyFile, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	dial(t, o)
}
