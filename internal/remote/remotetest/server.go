package remotetest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/k3lab/k3lab/internal/remote"
)

// Server is an SSH server on loopback that runs commands on this computer, as
// the user the test runs as. Like sshd for root, it passes no signals on.
type Server struct {
	Address string
	KeyFile string // a private key it accepts

	t        testing.TB
	listener net.Listener
	mu       sync.Mutex
	config   *ssh.ServerConfig
	accepted ssh.PublicKey
	conns    map[net.Conn]bool
	silent   bool
	wait     sync.WaitGroup
}

// NewServer starts a server that ends with the test.
func NewServer(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, conns: map[net.Conn]bool{}, KeyFile: filepath.Join(t.TempDir(), "id_ed25519")}
	var err error
	if s.listener, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	s.Address = s.listener.Addr().String()
	s.accepted = WriteKey(t, s.KeyFile)
	s.Rebuild()
	s.wait.Go(s.accept)
	t.Cleanup(func() {
		s.listener.Close()
		s.Cut()
		s.wait.Wait()
	})
	return s
}

// WriteKey makes a key pair, writes the private key to path and returns the public one.
func WriteKey(t testing.TB, path string) ssh.PublicKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return public
}

// Options reach this server; known hosts are in a file of the test's own.
func (s *Server) Options(knownHosts string) remote.Options {
	return remote.Options{Machine: "server-1", Address: s.Address, User: "root", KeyFile: s.KeyFile, KnownHosts: knownHosts}
}

// Rebuild gives the server a new host key, as a rebuilt machine has.
func (s *Server) Rebuild() {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		s.t.Fatal(err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.accepted == nil || string(key.Marshal()) != string(s.accepted.Marshal()) {
			return nil, errors.New("unknown key")
		}
		return &ssh.Permissions{}, nil
	}}
	config.AddHostKey(signer)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config = config
}

// AddHostKey has the server show one more host key from now on.
func (s *Server) AddHostKey(key ssh.Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.AddHostKey(key)
}

// Accept has the server take this public key from now on; nil: none.
func (s *Server) Accept(key ssh.PublicKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted = key
}

// Cut ends every connection, as a machine that is switched off and reset.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

// Silence has the server answer nothing any more on connections it has, as a
// machine whose link is gone.
func (s *Server) Silence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = true
}

func (s *Server) quiet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.silent
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[conn] = true
		config := s.config
		s.mu.Unlock()
		s.wait.Go(func() {
			s.serve(conn, config)
			conn.Close()
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
		})
	}
}

func (s *Server) serve(conn net.Conn, config *ssh.ServerConfig) {
	server, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	wait.Go(func() {
		for r := range requests {
			if r.WantReply && !s.quiet() {
				r.Reply(false, nil) //nolint:errcheck // a client that is gone needs none
			}
		}
	})
	for c := range channels {
		switch c.ChannelType() {
		case "session":
			wait.Go(func() { s.session(ctx, c) })
		case "direct-tcpip":
			wait.Go(func() { forward(ctx, c) })
		default:
			c.Reject(ssh.UnknownChannelType, c.ChannelType()) //nolint:errcheck // as above
		}
	}
	server.Close()
}

func (s *Server) session(ctx context.Context, c ssh.NewChannel) {
	channel, requests, err := c.Accept()
	if err != nil {
		return
	}
	defer channel.Close()
	for r := range requests {
		if r.Type != "exec" {
			r.Reply(false, nil) //nolint:errcheck // as above
			continue
		}
		var line struct{ Command string }
		if ssh.Unmarshal(r.Payload, &line) != nil {
			return
		}
		r.Reply(true, nil) //nolint:errcheck // as above
		go ssh.DiscardRequests(requests)
		message := execute(ctx, line.Command, channel)
		if s.quiet() {
			<-ctx.Done()
			return
		}
		channel.SendRequest(message.name, false, message.payload) //nolint:errcheck // as above
		return
	}
}

type ended struct {
	name    string
	payload []byte
}

// execute runs the command to its end, or until the connection ends.
func execute(ctx context.Context, line string, channel ssh.Channel) ended {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Stdout, cmd.Stderr = channel, channel.Stderr()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return ended{"exit-status", ssh.Marshal(struct{ Status uint32 }{255})}
	}
	go func() {
		io.Copy(stdin, channel) //nolint:errcheck // a command need not read all
		stdin.Close()
	}()
	_ = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		name := map[syscall.Signal]string{syscall.SIGKILL: "KILL", syscall.SIGTERM: "TERM"}[status.Signal()]
		return ended{"exit-signal", ssh.Marshal(struct {
			Signal string
			Core   bool
			Error  string
			Lang   string
		}{Signal: name})}
	}
	return ended{"exit-status", ssh.Marshal(struct{ Status uint32 }{uint32(cmd.ProcessState.ExitCode())})}
}

func forward(ctx context.Context, c ssh.NewChannel) {
	var to struct {
		Host     string
		Port     uint32
		FromHost string
		FromPort uint32
	}
	if ssh.Unmarshal(c.ExtraData(), &to) != nil {
		c.Reject(ssh.ConnectionFailed, "malformed") //nolint:errcheck // a client that is gone needs none
		return
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(to.Host, itoa(to.Port)))
	if err != nil {
		c.Reject(ssh.ConnectionFailed, err.Error()) //nolint:errcheck // as above
		return
	}
	defer conn.Close()
	channel, requests, err := c.Accept()
	if err != nil {
		return
	}
	defer channel.Close()
	go ssh.DiscardRequests(requests)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	go func() {
		io.Copy(conn, channel) //nolint:errcheck // either side may end it
		conn.Close()
	}()
	io.Copy(channel, conn) //nolint:errcheck // as above
}
