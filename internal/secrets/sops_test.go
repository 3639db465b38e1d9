package secrets_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/secrets"
)

// sopsProgram runs the real sops in a workspace.
func sopsProgram(t *testing.T, dir string) func(args ...string) string {
	t.Helper()
	path, err := exec.LookPath("sops")
	if err != nil {
		t.Skip("sops is not installed")
	}
	return func(args ...string) string {
		t.Helper()
		cmd := exec.Command(path, args...)
		cmd.Dir = dir
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("sops %v: %v\n%s", args, err, &stderr)
		}
		return string(out)
	}
}

func writeRule(t *testing.T, dir string) {
	t.Helper()
	name, text, err := open(t, dir).CreationRule()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, name), string(text))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func set(t *testing.T, dir, text string, path ...string) {
	t.Helper()
	if err := open(t, dir).Set(secrets.NewValue(text), path...); err != nil {
		t.Fatal(err)
	}
}

func newIdentity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestSopsItselfAndWeTakeTurns edits one file with both.
func TestSopsItselfAndWeTakeTurns(t *testing.T) {
	home(t)
	dir := t.TempDir()
	sops := sopsProgram(t, dir)
	writeRule(t, dir)
	set(t, dir, "t0ken", "k3s_token")
	set(t, dir, "a@pve!x=1", "proxmox_api_tokens", "home")
	sops("set", secrets.FileName, `["mine"]["by sops"]`, `"1e3"`)
	set(t, dir, "-----BEGIN\nkey\n", "ssh_private_key")
	want := "k3s_token: t0ken\nproxmox_api_tokens:\n  home: a@pve!x=1\nmine:\n  by sops: \"1e3\"\nssh_private_key: |\n  -----BEGIN\n  key\n"
	if diff := cmp.Diff(want, sops("decrypt", secrets.FileName)); diff != "" {
		t.Errorf("what sops reads (-want +got):\n%s", diff)
	}
	second := newIdentity(t)
	rule := read(t, filepath.Join(dir, ".sops.yaml"))
	write(t, filepath.Join(dir, ".sops.yaml"), strings.Replace(rule, "    age:\n", "    age:\n      - "+second.Recipient().String()+"\n", 1))
	sops("updatekeys", "--yes", secrets.FileName)
	set(t, dir, "n3w", "k3s_token")
	t.Setenv("HOME", t.TempDir()) // the second computer
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("SOPS_AGE_KEY", second.String())
	if v, err := open(t, dir).Get("k3s_token"); err != nil || v.Reveal() != "n3w" {
		t.Errorf("the second computer reads %q, %v", v.Reveal(), err)
	}
}

// TestSetChangesOneValue: git shows what was set, and nobody else is locked out.
func TestSetChangesOneValue(t *testing.T) {
	home(t)
	dir, path := t.TempDir(), ""
	path = filepath.Join(dir, secrets.FileName)
	writeRule(t, dir)
	second := newIdentity(t)
	rule := read(t, filepath.Join(dir, ".sops.yaml"))
	write(t, filepath.Join(dir, ".sops.yaml"), rule[:strings.Index(rule, "stores:")]+"      - "+second.Recipient().String()+"\n")
	set(t, dir, "one", "k3s_token")
	set(t, dir, "two", "proxmox_api_tokens", "home")
	set(t, dir, "three", "proxmox_api_tokens", "garage")
	before := read(t, path)
	set(t, dir, "four", "proxmox_api_tokens", "home")
	volatile := regexp.MustCompile(`(?m)^\s+(lastmodified|mac): .*\n`)
	var changed []string
	was, is := strings.Split(volatile.ReplaceAllString(before, ""), "\n"), strings.Split(volatile.ReplaceAllString(read(t, path), ""), "\n")
	for i, line := range is {
		if i >= len(was) || was[i] != line {
			changed = append(changed, strings.TrimSpace(strings.Split(line, "ENC[")[0]))
		}
	}
	if !slices.Equal(changed, []string{"home:"}) || len(was) != len(is) {
		t.Errorf("changed lines: %q", changed)
	}
	if got := len(open(t, dir).Recipients()); got != 2 {
		t.Errorf("%d recipients, want 2", got)
	}
	set(t, dir, "four", "proxmox_api_tokens", "home")
	if same := read(t, path); volatile.ReplaceAllString(same, "") != strings.Join(is, "\n") {
		t.Error("setting what is there changes the file")
	}
}

func TestSetRefuses(t *testing.T) {
	home(t)
	dir := t.TempDir()
	set(t, dir, "t0ken", "k3s_token")
	set(t, dir, "x", "proxmox_api_tokens", "home")
	before := read(t, filepath.Join(dir, secrets.FileName))
	for name, tt := range map[string]struct {
		path []string
		want string
	}{
		"a key below a value": {[]string{"k3s_token", "x"},
			"secrets.sops.yaml: k3s_token.x: k3s_token is a value, which has no keys (try: another name)"},
		"a map replaced": {[]string{"proxmox_api_tokens"},
			"secrets.sops.yaml: proxmox_api_tokens: proxmox_api_tokens is a map of keys, not one value (try: another name)"},
		"a name that sops leaves in plain": {[]string{"x_unencrypted"},
			"secrets.sops.yaml: x_unencrypted would stand there unencrypted: its rules say so (try: another name)"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, dir)
			err := s.Set(secrets.NewValue("v"), tt.path...)
			if err == nil || err.Error() != tt.want || fault.KindOf(err) != fault.Invalid {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if read(t, filepath.Join(dir, secrets.FileName)) != before {
				t.Error("the file was changed")
			}
			if v, err := s.Get("k3s_token"); err != nil || v.Reveal() != "t0ken" {
				t.Errorf("after the refusal: %q, %v", v.Reveal(), err)
			}
		})
	}
}

func TestCreationRule(t *testing.T) {
	home(t)
	id := newIdentity(t)
	t.Setenv("SOPS_AGE_KEY", id.String())
	name, text, err := open(t, t.TempDir()).CreationRule()
	if err != nil {
		t.Fatal(err)
	}
	want := `# Whom sops encrypts new secrets files for: the public halves of age keys. After
# adding one (of a second computer, a second person): sops updatekeys secrets.sops.yaml
creation_rules:
  - path_regex: \.sops\.yaml$
    age:
      - RECIPIENT
stores:
  yaml:
    indent: 2
`
	if diff := cmp.Diff(strings.ReplaceAll(want, "RECIPIENT", id.Recipient().String()), string(text)); diff != "" || name != ".sops.yaml" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// TestKeysAreFoundWhereSopsLooks: the first place that has one decides.
func TestKeysAreFoundWhereSopsLooks(t *testing.T) {
	env, file, config := newIdentity(t), newIdentity(t), newIdentity(t)
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		env, file, config string
		want              string
	}{
		"in keys.txt":         {config: "# a comment\n\n" + config.String() + "\n", want: config.Recipient().String()},
		"in the named file":   {file: file.String(), config: config.String(), want: file.Recipient().String()},
		"in the environment":  {env: env.String(), file: file.String(), want: env.Recipient().String()},
		"post-quantum":        {config: hybrid.String(), want: hybrid.Recipient().String()},
		"beside a plugin key": {config: config.String() + "\n" + plugin.EncodeIdentity("none", []byte("x")) + "\n", want: config.Recipient().String()},
	} {
		t.Run(name, func(t *testing.T) {
			h, dir := home(t), t.TempDir()
			if tt.env != "" {
				t.Setenv("SOPS_AGE_KEY", tt.env)
			}
			if tt.file != "" {
				t.Setenv("SOPS_AGE_KEY_FILE", filepath.Join(h, "named"))
				write(t, filepath.Join(h, "named"), tt.file)
			}
			if tt.config != "" {
				write(t, filepath.Join(h, ".config/sops/age/keys.txt"), tt.config)
			}
			_, rule, err := open(t, dir).CreationRule()
			if err != nil || !strings.Contains(string(rule), "      - "+tt.want+"\n") || strings.Count(string(rule), "      - ") != 1 {
				t.Errorf("%v\n%s\nwant only %s", err, rule, tt.want)
			}
			set(t, dir, "v", "key")
			if v, err := open(t, dir).Get("key"); err != nil || v.Reveal() != "v" {
				t.Errorf("%q, %v", v.Reveal(), err)
			}
		})
	}
}

// TestNoKeyIsMadeOverWhatIsThere: a key file is made only where there is none.
func TestNoKeyIsMadeOverWhatIsThere(t *testing.T) {
	for name, tt := range map[string]struct{ keys, rule, want string }{
		"a file without keys": {"# public key: none yet\n", "", "KEYS: it holds no age key (try: age-keygen >> KEYS)"},
		"a plugin's key": {plugin.EncodeIdentity("none", []byte("x")) + "\n", "",
			"secrets.sops.yaml: age key: what the public half of your key is only its plugin or command knows (try: name the recipients in .sops.yaml)"},
		"a rule for others": {"own", "creation_rules: [{age: OTHER}]",
			".sops.yaml: what is encrypted for its recipients you could not read: none of your age keys (KEYS) can decrypt it (try: add your age public key there)"},
		"a rule for other files": {"own", `creation_rules: [{path_regex: ^x$, age: OTHER}]`,
			`.sops.yaml: it has no rule that secrets.sops.yaml can be written by (try: a rule with path_regex: \.sops\.yaml$)`},
	} {
		t.Run(name, func(t *testing.T) {
			h, dir := home(t), t.TempDir()
			keys := filepath.Join(h, ".config/sops/age/keys.txt")
			text := tt.keys
			if text == "own" {
				text = newIdentity(t).String() + "\n"
			}
			write(t, keys, text)
			if tt.rule != "" {
				write(t, filepath.Join(dir, ".sops.yaml"), strings.ReplaceAll(tt.rule, "OTHER", newIdentity(t).Recipient().String()))
			}
			err := open(t, dir).Set(secrets.NewValue("v"), "key")
			if err == nil || strings.ReplaceAll(err.Error(), keys, "KEYS") != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if read(t, keys) != text {
				t.Error("the key file was changed")
			}
			if _, err := os.Stat(filepath.Join(dir, secrets.FileName)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a secrets file was written: %v", err)
			}
		})
	}
}

// TestOneKeyIsMade: workspaces begun at once by a user without a key share it.
func TestOneKeyIsMade(t *testing.T) {
	home(t)
	dirs := make([]string, 8)
	made := make([]bool, len(dirs))
	var wait sync.WaitGroup
	for i := range dirs {
		dirs[i] = t.TempDir()
		s := open(t, dirs[i])
		wait.Go(func() {
			if err := s.Set(secrets.NewValue("v"), "key"); err != nil {
				t.Error(err)
			}
			_, made[i] = s.KeyFile()
		})
	}
	wait.Wait()
	count := 0
	for i, dir := range dirs {
		if v, err := open(t, dir).Get("key"); err != nil || v.Reveal() != "v" {
			t.Errorf("workspace %d: %q, %v", i, v.Reveal(), err)
		}
		if made[i] {
			count++
		}
	}
	if count != 1 {
		t.Errorf("%d say they made the key, want 1", count)
	}
}
