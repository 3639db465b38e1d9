package tfprovider

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
func workspaceWith(t *testing.T, inFile, inSecrets string) keyPair {
	t.Helper()
	home, dir := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	for _, name := range []string{"SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE", "SOPS_AGE_KEY_CMD"} {
		t.Setenv(name, "")
		os.Unsetenv(name)
	}
	k := keyPair{file: filepath.Join(dir, ".k3lab/ssh/id_ed25519"), secretsFile: filepath.Join(dir, secrets.FileName)}
	if inFile != "" {
		writeKey(t, k.file, inFile)
	}
	if inSecrets != "" {
		store, err := secrets.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Set(secrets.NewValue(inSecrets), secretKey); err != nil {
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
	return private, line(signer.PublicKey())
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
	calls := map[string]func(keyPair) (ssh.PublicKey, error){"restore": keyPair.restore, "create": keyPair.create}
	for name, tt := range tests {
		for call, get := range calls {
			t.Run(name+"/"+call, func(t *testing.T) {
				k := workspaceWith(t, tt.file, tt.secret)
				want := map[string]string{"restore": tt.restoreErr, "create": tt.createErr}[call]
				public, err := get(k)
				if want != "" {
					if err == nil || strings.ReplaceAll(err.Error(), k.file, "FILE") != want {
						t.Errorf("got  %v\nwant %s", err, want)
					}
					if text, _ := os.ReadFile(k.file); string(text) != tt.file {
						t.Errorf("the file was changed to %q", text)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if tt.restoreErr == "" && line(public) != publicA {
					t.Errorf("got %s, want %s", line(public), publicA)
				}
				k.isKept(t, public)
			})
		}
	}
}

// isKept checks that the file, its public half and the secret are that key.
func (k keyPair) isKept(t *testing.T, public ssh.PublicKey) {
	t.Helper()
	text, err := os.ReadFile(k.file)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil || line(signer.PublicKey()) != line(public) || !strings.HasSuffix(string(text), "\n") {
		t.Errorf("the file holds another key, or is not as ssh wants it: %v", err)
	}
	store, err := secrets.Open(filepath.Dir(k.secretsFile))
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := store.Get(secretKey); err != nil || strings.TrimSpace(kept.Reveal()) != strings.TrimSpace(string(text)) {
		t.Errorf("the secrets hold another key: %v", err)
	}
	for path, mode := range map[string]os.FileMode{k.file: 0o600, filepath.Dir(k.file): 0o700} {
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
		"with a passphrase":           {private: string(pem.EncodeToMemory(block)), public: line(public)},
		"with a passphrase, no .pub":  {private: string(pem.EncodeToMemory(block)), wantErr: "public key of a key with a passphrase: open OWN.pub: no such file or directory"},
		"gone":                        {wantErr: "private key: open OWN: no such file or directory"},
		"a public key":                {private: line(public), wantErr: "OWN is no private key: ssh: no key found"},
		"with a broken public beside": {private: string(pem.EncodeToMemory(block)), public: "hello", wantErr: "OWN.pub: ssh: no key found"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			k := workspaceWith(t, "", "")
			k.own = filepath.Join(t.TempDir(), "mine")
			if tt.private != "" {
				writeKey(t, k.own, tt.private)
			}
			if tt.public != "" {
				writeKey(t, k.own+".pub", tt.public)
			}
			got, err := k.create()
			if tt.wantErr != "" {
				if err == nil || strings.ReplaceAll(err.Error(), k.own, "OWN") != tt.wantErr {
					t.Errorf("got  %v\nwant %s", err, tt.wantErr)
				}
			} else if err != nil || tt.public != "" && line(got) != tt.public {
				t.Errorf("got %v, %v", got, err)
			}
			for _, path := range []string{k.file, k.secretsFile} {
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
			got, err := authorized(tt.users, public)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if (err == nil) != (tt.wantErr == "") || err != nil && err.Error() != tt.wantErr {
				t.Errorf("got  %v\nwant %s", err, tt.wantErr)
			}
		})
	}
}
