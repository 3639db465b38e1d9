package remote

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/fault"
)

// hostKeys pins the key a machine shows at first contact, and refuses another.
type hostKeys struct {
	file    string
	machine string
	strict  bool     // only what the known files have is pinned
	known   []string // read only
	alias   string   // name in them, besides the address
	users   bool     // the file is one of those, and not k3lab's
}

// forget is the command that drops the pinned key.
func (h hostKeys) forget() string {
	if h.users {
		return "ssh-keygen -R " + h.machine + " -f " + h.file
	}
	return "k3lab ssh --forget " + h.machine
}

// check is an ssh.HostKeyCallback.
func (h hostKeys) check(address string, from net.Addr, key ssh.PublicKey) error {
	err := h.compare(address, from, key)
	if !errors.Is(err, errUnknownHost) {
		return err
	}
	switch known, err := h.vouched(address, key); {
	case err != nil:
		return err
	case h.strict && !known:
		return &UnknownKeyError{Machine: h.machine, Address: address, key: key}
	}
	return h.pin(address, from, key)
}

// UnknownKeyError is a machine that shows a host key nobody has accepted yet.
type UnknownKeyError struct {
	Machine, Address string
	key              ssh.PublicKey
}

// Type is the key's type, as ssh-keyscan names it.
func (e *UnknownKeyError) Type() string { return e.key.Type() }

// Fingerprint is the key's, as ssh-keygen -l prints it.
func (e *UnknownKeyError) Fingerprint() string { return ssh.FingerprintSHA256(e.key) }

func (e *UnknownKeyError) Error() string {
	return fmt.Sprintf("%s: its SSH host key is not known yet: %s %s at %s", e.Machine, e.Type(), e.Fingerprint(), e.Address)
}

// Pin accepts the key that was shown.
func (e *UnknownKeyError) Pin(knownHosts string) error {
	return hostKeys{file: knownHosts, machine: e.Machine}.pin(e.Address, &net.TCPAddr{}, e.key)
}

// names are the machine's in the known files: its address, and its alias at the
// same port.
func (h hostKeys) names(address string) []string {
	names := []string{address}
	if _, port, err := net.SplitHostPort(address); err == nil && h.alias != "" {
		names = append(names, net.JoinHostPort(h.alias, port))
	}
	return names
}

// vouched reports whether a known file has that very key, and fails where it has
// another one. What it says of a name counts, not what it says of the address
// the name leads to.
func (h hostKeys) vouched(address string, key ssh.PublicKey) (bool, error) {
	for _, file := range h.known {
		for _, name := range h.names(address) {
			err := hostKeys{file: file, machine: h.machine, users: true}.compare(name, &net.TCPAddr{}, key)
			switch {
			case err == nil:
				return true, nil
			case !errors.Is(err, errUnknownHost):
				return false, err
			}
		}
	}
	return false, nil
}

var errUnknownHost = errors.New("host key is not known yet")

func (h hostKeys) compare(address string, from net.Addr, key ssh.PublicKey) error {
	known, err := knownhosts.New(h.file)
	if errors.Is(err, fs.ErrNotExist) {
		return errUnknownHost
	}
	if err != nil {
		return fault.New(fault.Invalid, h.file, "", "known hosts: %w", err)
	}
	err = known(address, from, key)
	var differs *knownhosts.KeyError
	switch {
	case !errors.As(err, &differs):
		return err
	case len(differs.Want) == 0:
		return errUnknownHost
	}
	want := differs.Want[0]
	return fault.New(fault.Unreachable, h.machine,
		h.forget()+", if the machine was rebuilt; if it was not, somebody may be listening",
		"its SSH host key changed: %s %s is pinned at %s:%d, but %s shows %s %s",
		want.Key.Type(), ssh.FingerprintSHA256(want.Key), want.Filename, want.Line, address, key.Type(), ssh.FingerprintSHA256(key))
}

// pin appends the key unless another k3lab has done so in the meantime.
func (h hostKeys) pin(address string, from net.Addr, key ssh.PublicKey) error {
	if err := os.MkdirAll(filepath.Dir(h.file), 0o700); err != nil {
		return err
	}
	f, err := openLocked(h.file, os.O_RDWR|os.O_CREATE|os.O_APPEND)
	if err != nil {
		return err
	}
	defer f.Close() // and so unlocks
	if err := h.compare(address, from, key); !errors.Is(err, errUnknownHost) {
		return err
	}
	line := knownhosts.Line([]string{address}, key) + "\n"
	if info, err := f.Stat(); err == nil && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			line = "\n" + line
		}
	}
	if _, err := f.WriteString(line); err != nil {
		return err
	}
	return f.Sync()
}

// openLocked opens the file and keeps other processes from changing it until it
// is closed.
func openLocked(path string, flags int) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, flags, 0o600)
		if err != nil {
			return nil, err
		}
		for {
			if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		// Forget may have put another file in its place while the lock was waited for.
		held, err := f.Stat()
		if err == nil {
			var now os.FileInfo
			if now, err = os.Stat(path); err == nil && os.SameFile(held, now) {
				return f, nil
			}
		}
		f.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// algorithms are those the machine is asked for: those of its pinned keys first,
// else a machine with several keys would show one that is not pinned.
func (h hostKeys) algorithms(address string) []string {
	offered := slices.DeleteFunc(ssh.SupportedAlgorithms().HostKeys, func(a string) bool {
		return strings.Contains(a, "-cert-")
	})
	prefer := algorithmsIn(h.file, address)
	for _, file := range h.known {
		for _, name := range h.names(address) {
			if prefer == nil {
				prefer = algorithmsIn(file, name)
			}
		}
	}
	if prefer == nil {
		prefer = []string{ssh.KeyAlgoED25519}
	}
	isPreferred := func(a string) bool { return slices.Contains(prefer, a) }
	return append(slices.DeleteFunc(prefer, func(a string) bool { return !slices.Contains(offered, a) }),
		slices.DeleteFunc(offered, isPreferred)...)
}

// algorithmsIn are those of the keys a file has for an address; nil without one.
func algorithmsIn(file, address string) (prefer []string) {
	known, err := knownhosts.New(file)
	if err != nil {
		return nil
	}
	// Asking for a key that nobody has yields those that are pinned.
	probe, err := ssh.NewPublicKey(ed25519.PublicKey(make([]byte, ed25519.PublicKeySize)))
	var differs *knownhosts.KeyError
	if err == nil && errors.As(known(address, &net.TCPAddr{}, probe), &differs) {
		for _, w := range differs.Want {
			prefer = append(prefer, keyAlgorithms(w.Key.Type())...)
		}
	}
	return prefer
}

// keyAlgorithms are the signature algorithms of a key type.
func keyAlgorithms(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}

// Forget drops the pinned host keys of an address, so that a machine rebuilt
// there is accepted again, and returns how many there were.
func Forget(knownHosts, address string) (int, error) {
	f, err := openLocked(knownHosts, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	content, err := os.ReadFile(knownHosts)
	if err != nil {
		return 0, err
	}
	host := knownhosts.Normalize(withPort(address))
	var kept bytes.Buffer
	dropped := 0
	for line := range strings.SplitAfterSeq(string(content), "\n") {
		names, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if slices.Contains(strings.Split(names, ","), host) {
			dropped++
			continue
		}
		kept.WriteString(line)
	}
	if dropped == 0 {
		return 0, nil
	}
	return dropped, renameio.WriteFile(knownHosts, kept.Bytes(), 0o600)
}
