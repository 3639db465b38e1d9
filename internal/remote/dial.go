package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/k3lab/k3lab/internal/fault"
)

const (
	handshakeTimeout = 20 * time.Second // a machine that boots is slow
	retryFirst       = 100 * time.Millisecond
	retryMost        = time.Second
)

// ciphers: AES-GCM first, which today's processors do in hardware.
var ciphers = []string{
	ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherChaCha20Poly1305, ssh.CipherAES128CTR, ssh.CipherAES256CTR,
}

// Dial connects to the machine. As long as it does not answer, it is tried again
// until ctx ends; a refused key only for the time Options allow. Everything else
// is an error at once.
func Dial(ctx context.Context, o Options) (*Client, error) {
	o = o.withDefaults()
	var refusedSince time.Time
	var last error // of an attempt that ctx did not end: it says more
	told, pause := "", retryFirst
	for {
		c, err := dialOnce(ctx, o)
		if err == nil {
			return c, nil
		}
		ended := over(ctx)
		if !ended || last == nil {
			last = err
		}
		if ended {
			return nil, gaveUp(ctx, o, last)
		}
		switch {
		case refused(err):
			if refusedSince.IsZero() {
				refusedSince = time.Now()
			}
			if time.Since(refusedSince) >= o.AuthGrace {
				return nil, notAccepted(o, err)
			}
		case !transient(err):
			var known *fault.Error
			if errors.As(err, &known) && known.Object == o.Machine {
				return nil, known // it says all; the library puts it at the end of its own words
			}
			return nil, fmt.Errorf("%s: ssh %s: %w", o.Machine, o.Address, err)
		default:
			refusedSince = time.Time{}
		}
		if why := cause(err); why != told {
			told = why
			o.OnWait(why)
		}
		select {
		case <-ctx.Done():
			return nil, gaveUp(ctx, o, last)
		case <-time.After(pause):
			pause = min(2*pause, retryMost)
		}
	}
}

// over reports whether ctx has ended. A connection attempt ends by the clock, which
// may be a moment before the context says so.
func over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// ErrNoAnswer says that the machine did not answer as long as it was waited for:
// it is off, it still boots, or the network does not lead there.
var ErrNoAnswer = errors.New("no answer in time")

func gaveUp(ctx context.Context, o Options, last error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("%s: ssh %s: %w", o.Machine, o.Address, context.Cause(ctx))
	}
	if refused(last) {
		return notAccepted(o, last)
	}
	why := cause(last)
	if why == silence {
		return fault.New(fault.Unreachable, o.Machine, "k3lab status", "ssh %s: %w", o.Address, ErrNoAnswer)
	}
	return fault.New(fault.Unreachable, o.Machine, "k3lab status", "ssh %s: %w: %s", o.Address, ErrNoAnswer, why)
}

func notAccepted(o Options, err error) error {
	public := "a public key of " + keyNames(o)
	if o.KeyFile != "" {
		public = o.KeyFile + ".pub"
	}
	return fault.New(fault.Unreachable, o.Machine,
		fmt.Sprintf("add %s to .ssh/authorized_keys of %s there, or name the right key: access.key_file in ansible/group_vars/all.yaml", public, o.User),
		"ssh %s: the machine accepts no key of %s for user %s: %w", o.Address, keyNames(o), o.User, err)
}

func dialOnce(ctx context.Context, o Options) (*Client, error) {
	auth, done, err := authentication(ctx, o)
	if err != nil {
		return nil, err
	}
	defer done()
	connectCtx, cancel := context.WithTimeout(ctx, o.ConnectTimeout)
	defer cancel()
	conn, err := o.Via(connectCtx, "tcp", o.Address)
	if err != nil {
		return nil, err
	}
	// The handshake knows no context: ending it means closing the connection.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		conn.Close()
		return nil, err
	}
	keys := hostKeys{file: o.KnownHosts, machine: o.Machine, strict: o.Strict, known: o.Known, alias: o.Alias}
	config := &ssh.ClientConfig{
		Config:            ssh.Config{Ciphers: ciphers},
		User:              o.User,
		Auth:              []ssh.AuthMethod{auth},
		HostKeyCallback:   keys.check,
		HostKeyAlgorithms: keys.algorithms(o.Address),
	}
	sshConn, channels, requests, err := ssh.NewClientConn(conn, o.Address, config)
	if err != nil {
		conn.Close()
		return nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		sshConn.Close()
		return nil, err
	}
	if !stop() { // given up at the last moment: the connection is being closed
		sshConn.Close()
		return nil, context.Cause(ctx)
	}
	return newClient(ssh.NewClient(sshConn, channels, requests), o), nil
}

// authentication offers the key of the file first, then those of the agent. Of
// these the one whose file has a passphrase comes first: a machine takes only a
// few attempts (MaxAuthTries).
func authentication(ctx context.Context, o Options) (ssh.AuthMethod, func(), error) {
	var signers []ssh.Signer
	done := func() {}
	var keyErr error
	var wanted ssh.PublicKey
	if o.KeyFile != "" {
		text, err := os.ReadFile(o.KeyFile)
		if err == nil {
			var signer ssh.Signer
			if signer, err = ssh.ParsePrivateKey(text); err == nil {
				signers = append(signers, signer)
			}
		}
		var locked *ssh.PassphraseMissingError
		if errors.As(err, &locked) {
			err, wanted = errors.New("has a passphrase"), publicHalf(o.KeyFile, locked)
		}
		keyErr = err
	}
	if socket := os.Getenv("SSH_AUTH_SOCK"); socket != "" {
		if conn, err := new(net.Dialer).DialContext(ctx, "unix", socket); err == nil {
			done = func() { conn.Close() }
			if more, err := agent.NewClient(conn).Signers(); err == nil {
				signers = append(signers, firstOf(more, wanted)...)
			}
		}
	}
	if len(signers) > 0 {
		return ssh.PublicKeys(signers...), done, nil
	}
	done()
	if keyErr == nil {
		keyErr = fs.ErrNotExist
	}
	return nil, nil, fault.New(fault.Invalid, o.Machine, "ssh-add, or a key file without a passphrase", "no usable SSH key: %s: %w", keyNames(o), keyErr)
}

// publicHalf is the public key of a private key that has a passphrase, nil where
// it is not known.
func publicHalf(file string, locked *ssh.PassphraseMissingError) ssh.PublicKey {
	if locked.PublicKey != nil {
		return locked.PublicKey
	}
	text, err := os.ReadFile(file + ".pub")
	if err != nil {
		return nil
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil
	}
	return public
}

// firstOf returns the signers with that of one key first.
func firstOf(signers []ssh.Signer, key ssh.PublicKey) []ssh.Signer {
	if key == nil {
		return signers
	}
	is := func(s ssh.Signer) bool { return bytes.Equal(s.PublicKey().Marshal(), key.Marshal()) }
	first := slices.DeleteFunc(slices.Clone(signers), func(s ssh.Signer) bool { return !is(s) })
	return append(first, slices.DeleteFunc(slices.Clone(signers), is)...)
}

func keyNames(o Options) string {
	if os.Getenv("SSH_AUTH_SOCK") == "" {
		return o.KeyFile
	}
	return strings.TrimPrefix(o.KeyFile+" and the SSH agent", " and ")
}

// refused reports whether the machine took none of the keys. The library has no
// type for it.
func refused(err error) bool {
	return strings.Contains(err.Error(), "ssh: unable to authenticate") || strings.Contains(err.Error(), "Too many authentication failures")
}

// transient reports whether a machine that boots, or is restarted, may fail so.
func transient(err error) bool {
	var known *fault.Error
	if errors.As(err, &known) {
		return false
	}
	for _, e := range []error{
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, io.EOF, io.ErrUnexpectedEOF,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsTemporary
	}
	var timed net.Error
	return errors.As(err, &timed) && timed.Timeout()
}

// cause says in a word or two why there is no connection yet.
// silence is a cause that says no more than that there is no answer.
const silence = "no answer"

func cause(err error) string {
	var errno syscall.Errno
	var timed net.Error
	switch {
	case refused(err):
		return "key not accepted yet"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, io.EOF):
		return "connection closed during the handshake"
	case errors.As(err, &timed) && timed.Timeout():
		return silence
	}
	return err.Error()
}
