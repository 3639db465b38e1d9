package secrets_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/secrets"
)

func TestEditedText(t *testing.T) {
	home(t)
	dir := t.TempDir()
	set(t, dir, "t0ken", "k3s_token")
	set(t, dir, "a@pve!x=1", "proxmox_api_tokens", "home")
	s := open(t, dir)
	old, err := s.Text()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff("k3s_token: t0ken\nproxmox_api_tokens:\n  home: a@pve!x=1\n", string(old)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	before := read(t, filepath.Join(dir, secrets.FileName))
	text := "# mine\nk3s_token: t0ken\nproxmox_api_tokens:\n  home: b@pve!x=2\nnas: \"12\"\n"
	if err := s.Replace(old, []byte(text)); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, dir).Text()
	if err != nil || string(got) != text {
		t.Errorf("%v (-want +got):\n%s", err, cmp.Diff(text, string(got)))
	}
	if d := cmp.Diff([]string{"k3s_token", "proxmox_api_tokens.home", "nas"}, open(t, dir).Names()); d != "" {
		t.Errorf("names (-want +got):\n%s", d)
	}
	token := regexp.MustCompile(`(?m)^k3s_token: .*$`)
	after := read(t, filepath.Join(dir, secrets.FileName))
	if token.FindString(before) != token.FindString(after) {
		t.Error("a value that was not edited was encrypted anew")
	}
	if strings.Contains(after, "b@pve") || strings.Contains(after, "mine") {
		t.Errorf("a value or comment stands there in plain:\n%s", after)
	}
}

func TestReplaceRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"no YAML": {"k3s_token: [s3cret\n", "secrets.sops.yaml: it is no YAML map: line 1 (try: KEY: \"VALUE\" on each line)"},
		"a list":  {"- s3cret\n", "secrets.sops.yaml: it is no YAML map: line 1 (try: KEY: \"VALUE\" on each line)"},
		"a number": {"k3s_token: t0ken\npin: 12\n",
			"secrets.sops.yaml: pin is no text (try: put the value in quotes)"},
		"two documents": {"a: b\n---\nc: d\n", "secrets.sops.yaml: it holds 2 YAML documents, and one is read (try: remove the lines ---)"},
		"a name that sops leaves in plain": {"k3s_token: t0ken\nx_unencrypted: y\n",
			"secrets.sops.yaml: x_unencrypted would stand there unencrypted: its rules say so (try: another name)"},
	} {
		t.Run(name, func(t *testing.T) {
			home(t)
			dir := t.TempDir()
			set(t, dir, "t0ken", "k3s_token")
			before := read(t, filepath.Join(dir, secrets.FileName))
			s := open(t, dir)
			old, err := s.Text()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Replace(old, []byte(tt.text)); err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if read(t, filepath.Join(dir, secrets.FileName)) != before {
				t.Error("the file was changed")
			}
		})
	}
}

// TestReplaceLosesNothing: what somebody else has set while the editor was open stays.
func TestReplaceLosesNothing(t *testing.T) {
	home(t)
	dir := t.TempDir()
	set(t, dir, "t0ken", "k3s_token")
	s := open(t, dir)
	old, err := s.Text()
	if err != nil {
		t.Fatal(err)
	}
	set(t, dir, "x", "other")
	if err := s.Replace(old, []byte("k3s_token: mine\n")); !errors.Is(err, secrets.ErrChanged) {
		t.Errorf("got %v, want %v", err, secrets.ErrChanged)
	}
	if d := cmp.Diff([]string{"k3s_token", "other"}, open(t, dir).Names()); d != "" {
		t.Errorf("names (-want +got):\n%s", d)
	}
}

// TestRekey: whoever the rule no longer names cannot read the file any more.
func TestRekey(t *testing.T) {
	home(t)
	dir := t.TempDir()
	writeRule(t, dir)
	rule := read(t, filepath.Join(dir, ".sops.yaml"))
	second := newIdentity(t)
	with := strings.Replace(rule, "    age:\n", "    age:\n      - "+second.Recipient().String()+"\n", 1)
	write(t, filepath.Join(dir, ".sops.yaml"), with)
	set(t, dir, "t0ken", "k3s_token")
	before := read(t, filepath.Join(dir, secrets.FileName))
	if n := len(open(t, dir).Recipients()); n != 2 {
		t.Fatalf("%d recipients, want 2", n)
	}
	write(t, filepath.Join(dir, ".sops.yaml"), rule)
	if err := open(t, dir).Rekey(); err != nil {
		t.Fatal(err)
	}
	after := read(t, filepath.Join(dir, secrets.FileName))
	value := regexp.MustCompile(`(?m)^k3s_token: .*$`)
	if value.FindString(before) == value.FindString(after) {
		t.Error("the value was not encrypted anew")
	}
	if v, err := open(t, dir).Get("k3s_token"); err != nil || v.Reveal() != "t0ken" {
		t.Errorf("%q, %v", v.Reveal(), err)
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("SOPS_AGE_KEY", second.String())
	if _, err := secrets.Open(dir); err == nil {
		t.Error("who is no longer named still reads it")
	}
	write(t, filepath.Join(dir, secrets.FileName), before)
	if _, err := secrets.Open(dir); err != nil {
		t.Errorf("it could not read the old file either, so the test shows nothing: %v", err)
	}
}

func TestRekeyWithoutAFile(t *testing.T) {
	home(t)
	dir := t.TempDir()
	if err := open(t, dir).Rekey(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, secrets.FileName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was written, %v", err)
	}
}

func TestUpdate(t *testing.T) {
	home(t)
	dir := t.TempDir()
	set(t, dir, "old", "k3s_token")
	set(t, dir, "new", "k3s_token_next")
	err := open(t, dir).Update(
		secrets.Change{Path: []string{"k3s_tokens_retired", "2026-01-10"}, Value: secrets.NewValue("old")},
		secrets.Change{Path: []string{"k3s_token"}, Value: secrets.NewValue("new")},
		secrets.Change{Path: []string{"k3s_token_next"}},
		secrets.Change{Path: []string{"never", "there"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	text, err := open(t, dir).Text()
	if d := cmp.Diff("k3s_token: new\nk3s_tokens_retired:\n  \"2026-01-10\": old\n", string(text)); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	err = open(t, dir).Update(
		secrets.Change{Path: []string{"k3s_token"}, Value: secrets.NewValue("third")},
		secrets.Change{Path: []string{"k3s_tokens_retired"}, Value: secrets.NewValue("a map replaced")},
	)
	if v, _ := open(t, dir).Get("k3s_token"); err == nil || v.Reveal() != "new" {
		t.Errorf("a refused change was made in part: %q, %v", v.Reveal(), err)
	}
}
