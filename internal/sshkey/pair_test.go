package sshkey

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/k3lab/k3lab/internal/secrets"
)

// workspaceWith makes a workspace of a user of its own; empty texts are left out.
func workspaceWith(t *testing.T, inFile, inSecrets string) Pair {
	t.Helper()
	home, dir := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	for _, name := range []string{"SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE", "SOPS_AGE_KEY_CMD"} {
		t.Setenv(name, "")
		os.Unsetenv(name)
	}
	k := Pair{File: filepath.Join(dir, ".k3lab/ssh/id_ed25519"), SecretsFile: filepath.Join(dir, secrets.FileName)}
	if inFile != "" {
		writeKey(t, k.File, inFile)
	}
	if inSecrets != "" {
		store, err := secrets.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Set(secrets.NewValue(inSecrets), SecretName); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func writeKey(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func newKey(t *testing.T) (private, public string) {
	t.Helper()
	private, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey([]byte(private))
	if err != nil {
		t.Fatal(err)
	}
	return private, Line(signer.PublicKey())
}

// TestKeyPair: wherever the key is, it is that one and both places have it
// afterwards; what is in doubt stops, and nothing is written.
func TestKeyPair(t *testing.T) {
	a, publicA := newKey(t)
	b, _ := newKey(t)
	lost := "the private key file is gone and the secrets file does not hold it"
	differ := "FILE and ssh_private_key in secrets.sops.yaml are different keys: delete the file to get the kept one back, " +
		"or k3lab secrets set ssh_private_key to keep the one in the file"
	tests := map[string]struct {
		file, secret string
		restoreErr   string // create makes a key where this is lost
		createErr    string
	}{
		"nowhere":                       {restoreErr: lost},
		"in both":                       {file: a, secret: a},
		"in both, but for the end":      {file: a, secret: strings.TrimSpace(a)},
		"on a second computer":          {secret: a},
		"pasted without a last newline": {secret: strings.TrimSpace(a)},
		"before secrets were kept":      {file: a},
		"two keys":                      {file: b, secret: a, restoreErr: differ, createErr: differ},
		"no key in the secrets": {secret: "hello",
			restoreErr: "ssh_private_key in secrets.sops.yaml is no private key: ssh: no key found",
			createErr:  "ssh_private_key in secrets.sops.yaml is no private key: ssh: no key found"},
	}
	calls := map[string]func(Pair) (ssh.PublicKey, error){"restore": Pair.Restore, "create": Pair.Create}
	for name, tt := range tests {
		for call, get := range calls {
			t.Run(name+"/"+call, func(t *testing.T) {
				k := workspaceWith(t, tt.file, tt.secret)
				want := map[string]string{"restore": tt.restoreErr, "create": tt.createErr}[call]
				public, err := get(k)
				if want != "" {
					if err == nil || strings.ReplaceAll(err.Error(), k.File, "FILE") != want {
						t.Errorf("got  %v\nwant %s", err, want)
					}
					if text, _ := os.ReadFile(k.File); string(text) != tt.file {
						t.Errorf("the file was changed to %q", text)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if tt.restoreErr == "" && Line(public) != publicA {
					t.Errorf("got %s, want %s", Line(public), publicA)
				}
				k.isKept(t, public)
			})
		}
	}
}

// isKept checks that the file, its public half and the secret are that key.
func (k Pair) isKept(t *testing.T, public ssh.PublicKey) {
	t.Helper()
	text, err := os.ReadFile(k.File)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil || Line(signer.PublicKey()) != Line(public) || !strings.HasSuffix(string(text), "\n") {
		t.Errorf("the file holds another key, or is not as ssh wants it: %v", err)
	}
	store, err := secrets.Open(filepath.Dir(k.SecretsFile))
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := store.Get(SecretName); err != nil || strings.TrimSpace(kept.Reveal()) != strings.TrimSpace(string(text)) {
		t.Errorf("the secrets hold another key: %v", err)
	}
	for path, mode := range map[string]os.FileMode{k.File: 0o600, filepath.Dir(k.File): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %v", path, info, err, mode)
		}
	}
}

func TestUsersOwnKey(t *testing.T) {
	plain, _ := newKey(t)
	raw, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(raw, "", []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(&raw.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ private, public, wantErr string }{
		"plain":                       {private: plain},
		"with a passphrase":           {private: string(pem.EncodeToMemory(block)), public: Line(public)},
		"with a passphrase, no .pub":  {private: string(pem.EncodeToMemory(block)), wantErr: "public key of a key with a passphrase: open OWN.pub: no such file or directory"},
		"gone":                        {wantErr: "private key: open OWN: no such file or directory"},
		"a public key":                {private: Line(public), wantErr: "OWN is no private key: ssh: no key found"},
		"with a broken public beside": {private: string(pem.EncodeToMemory(block)), public: "hello", wantErr: "OWN.pub: ssh: no key found"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			k := workspaceWith(t, "", "")
			k.Own = filepath.Join(t.TempDir(), "mine")
			if tt.private != "" {
				writeKey(t, k.Own, tt.private)
			}
			if tt.public != "" {
				writeKey(t, k.Own+".pub", tt.public)
			}
			got, err := k.Create()
			if tt.wantErr != "" {
				if err == nil || strings.ReplaceAll(err.Error(), k.Own, "OWN") != tt.wantErr {
					t.Errorf("got  %v\nwant %s", err, tt.wantErr)
				}
			} else if err != nil || tt.public != "" && Line(got) != tt.public {
				t.Errorf("got %v, %v", got, err)
			}
			for _, path := range []string{k.File, k.SecretsFile} {
				if _, err := os.Stat(path); err == nil {
					t.Errorf("%s was written", path)
				}
			}
		})
	}
}

func TestAuthorized(t *testing.T) {
	_, ours := newKey(t)
	_, other := newKey(t)
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(ours))
	if err != nil {
		t.Fatal(err)
	}
	bare := func(text string) string { return strings.Join(strings.Fields(text)[:2], " ") }
	tests := map[string]struct {
		users   []string
		want    []string
		wantErr string
	}{
		"none":            {nil, []string{ours}, ""},
		"theirs first":    {[]string{bare(other) + " me@pc\n"}, []string{bare(other) + " me@pc", ours}, ""},
		"twice":           {[]string{bare(other) + " me@pc", bare(other) + " me@laptop"}, []string{bare(other) + " me@pc", ours}, ""},
		"ours is theirs":  {[]string{bare(ours) + " me@pc"}, []string{bare(ours) + " me@pc"}, ""},
		"with options":    {[]string{`from="192.0.2.0/24" ` + bare(other)}, []string{`from="192.0.2.0/24" ` + bare(other), ours}, ""},
		"no key":          {[]string{"hello"}, nil, `public key "hello" in access.public_keys: ssh: no key found`},
		"two in one text": {[]string{"A\nB"}, nil, `public key "A\nB" in access.public_keys: write one key per entry`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if name == "two in one text" {
				tt.users[0] = bare(other) + "\n" + bare(ours)
				tt.wantErr = strings.Replace(tt.wantErr, `A\nB`, bare(other)+`\n`+bare(ours), 1)
			}
			got, err := Authorized(tt.users, public)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if (err == nil) != (tt.wantErr == "") || err != nil && err.Error() != tt.wantErr {
				t.Errorf("got  %v\nwant %s", err, tt.wantErr)
			}
		})
	}
}
