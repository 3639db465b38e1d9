package sshkey

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/secrets"
)

func (k Pair) keys(t *testing.T, users ...string) Keys {
	t.Helper()
	keys, err := k.Keys(users)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestRotation walks through a rotation and looks at each moment at which it may
// be interrupted.
func TestRotation(t *testing.T) {
	private, public := newKey(t)
	k := workspaceWith(t, private, private)
	equal := func(moment string, want, got any) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", moment, d)
		}
	}
	equal("before", Keys{Authorized: []string{public}}, k.keys(t))

	file, err := k.Next()
	if err != nil {
		t.Fatal(err)
	}
	nextPublic := strings.TrimSpace(read(t, file+".pub"))
	next := read(t, file)
	if next == private || file == k.File {
		t.Fatal("the next key is the one there is")
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the next key's file: %v, %v", info, err)
	}
	equal("machines are told of it", Keys{Authorized: []string{public, nextPublic}}, k.keys(t))
	if again, err := k.Next(); err != nil || read(t, again) != next {
		t.Errorf("begun again it is another key: %v", err)
	}
	equal("the key is still the one there was", private, read(t, k.File))

	if err := k.Promote(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	equal("after", Keys{Authorized: []string{nextPublic}, Retired: []string{public}}, k.keys(t))
	equal("its own key as the user's", Keys{Authorized: []string{public, nextPublic}}, k.keys(t, public))
	equal("the key file", next, read(t, k.File))
	for _, left := range []string{k.File + ".next", k.File + ".next.pub"} {
		if _, err := os.Stat(left); err == nil {
			t.Errorf("%s was left behind", left)
		}
	}
	store, err := secrets.Open(filepath.Dir(k.SecretsFile))
	if err != nil {
		t.Fatal(err)
	}
	equal("the secrets", []string{"ssh_private_key", "ssh_private_keys_retired.2026-11-23T12-00-00Z"}, store.Names())

	// Another computer, or this one killed after the secrets were written, still
	// has the old file.
	writeKey(t, k.File, private)
	if _, err := k.Restore(); err != nil {
		t.Fatal(err)
	}
	equal("the key file of another computer", next, read(t, k.File))
}

func TestPromoteNeedsANextKey(t *testing.T) {
	private, _ := newKey(t)
	k := workspaceWith(t, private, private)
	if err := k.Promote(time.Now()); err == nil || read(t, k.File) != private {
		t.Errorf("promoted what is not there: %v", err)
	}
}

// TestUsersOwnKeyIsNotRotated: what is in the secrets file is not theirs.
func TestUsersOwnKeyIsNotRotated(t *testing.T) {
	private, _ := newKey(t)
	k := workspaceWith(t, private, private)
	if _, err := k.Next(); err != nil {
		t.Fatal(err)
	}
	own, ownPublic := newKey(t)
	k.Own = k.File + ".own"
	writeKey(t, k.Own, own)
	if d := cmp.Diff(Keys{Authorized: []string{ownPublic}}, k.keys(t)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
