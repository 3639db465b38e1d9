package secrets_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/secrets"
)

// home gives the test a user of its own, with no age key yet.
func home(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, ".config"))
	for _, name := range []string{"SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE", "SOPS_AGE_KEY_CMD", "SOPS_AGE_SSH_PRIVATE_KEY_FILE"} {
		t.Setenv(name, "")
		os.Unsetenv(name)
	}
	return dir
}

func open(t *testing.T, dir string) *secrets.Store {
	t.Helper()
	s, err := secrets.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSetAndGet(t *testing.T) {
	h, dir := home(t), t.TempDir()
	s := open(t, dir)
	want := map[string][]string{
		"t0ken":                 {"k3s_token"},
		"k3lab@pve!up=1-2-3":    {"proxmox_api_tokens", "home"},
		"-----BEGIN\na\n b\n":   {"ssh_private_key"},
		"yes":                   {"looks", "like", "a-boolean"},
		"0123":                  {"looks", "like", "a-number"},
		"# no comment: \"x\" '": {"odd"},
	}
	for text, path := range want {
		if err := s.Set(secrets.NewValue(text), path...); err != nil {
			t.Fatal(err)
		}
	}
	again := open(t, dir)
	for text, path := range want {
		if v, err := again.Get(path...); err != nil || v.Reveal() != text {
			t.Errorf("%v: got %q, %v; want %q", path, v.Reveal(), err, text)
		}
	}
	file, err := os.ReadFile(filepath.Join(dir, secrets.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(file), "t0ken") || !strings.Contains(string(file), "k3s_token: ENC[AES256_GCM") {
		t.Errorf("the file is not encrypted as sops does:\n%s", file)
	}
	for path, mode := range map[string]os.FileMode{
		filepath.Join(dir, secrets.FileName):             0o600,
		filepath.Join(h, ".config", "sops/age/keys.txt"): 0o600,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %v", path, info, err, mode)
		}
	}
}

func TestGetNamesWhatIsMissing(t *testing.T) {
	home(t)
	_, err := open(t, t.TempDir()).Get("proxmox_api_tokens", "home")
	want := "secrets.sops.yaml: proxmox_api_tokens.home: no such secret (try: k3lab secrets set proxmox_api_tokens.home)"
	if err == nil || err.Error() != want || !errors.Is(err, secrets.ErrNotFound) {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	h, dir := home(t), t.TempDir()
	if err := open(t, dir).Set(secrets.NewValue("v"), "key"); err != nil {
		t.Fatal(err)
	}
	file, keys := filepath.Join(dir, secrets.FileName), filepath.Join(h, ".config/sops/age/keys.txt")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		file string
		keys func() error
		want string
	}{
		"no YAML":       {"{", nil, "secrets.sops.yaml: it is no file that sops has encrypted (try: git checkout secrets.sops.yaml)"},
		"empty":         {"\n", nil, "secrets.sops.yaml: it is empty (try: git checkout secrets.sops.yaml)"},
		"not encrypted": {"key: v\n", nil, "secrets.sops.yaml: it is not encrypted (try: sops encrypt --in-place secrets.sops.yaml)"},
		"merge conflict": {"<<<<<<< HEAD\n" + string(good), nil,
			"secrets.sops.yaml: it has the marks of a merge conflict (try: git checkout --theirs secrets.sops.yaml, then set your own secrets again)"},
		"changed by hand": {
			strings.Replace(string(good), "key: ", "other: ", 1), nil,
			"secrets.sops.yaml: it was changed by something that is not sops: its checksum does not match (try: git checkout secrets.sops.yaml)",
		},
		"no key": {string(good), func() error { return os.Remove(keys) },
			"secrets.sops.yaml: there is no age key in KEYS (try: copy the key file from the computer that has it)"},
		"keys broken": {string(good), func() error { return os.WriteFile(keys, []byte("AGE-SECRET-KEY-1TYPO\n"), 0o600) },
			"secrets.sops.yaml: KEYS: it holds something that is no age key (try: copy the key file from the computer that has it)"},
		"another key": {string(good), func() error {
			if err := os.Remove(keys); err != nil {
				return err
			}
			return open(t, t.TempDir()).Set(secrets.NewValue("x"), "x")
		}, "secrets.sops.yaml: none of your age keys (KEYS) can decrypt it (try: copy the key file from the computer that has it)"},
	}
	saved, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(os.WriteFile(file, []byte(tt.file), 0o600), os.WriteFile(keys, saved, 0o600)); err != nil {
				t.Fatal(err)
			}
			if tt.keys != nil {
				if err := tt.keys(); err != nil {
					t.Fatal(err)
				}
			}
			_, err := secrets.Open(dir)
			if err == nil {
				t.Fatal("no error")
			}
			if got := strings.ReplaceAll(err.Error(), keys, "KEYS"); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if fault.KindOf(err) != fault.Invalid {
				t.Errorf("kind %d, want invalid", fault.KindOf(err))
			}
		})
	}
}

// TestManyAtOnce: no update is lost, and a secret is generated once.
func TestManyAtOnce(t *testing.T) {
	home(t)
	dir := t.TempDir()
	if err := open(t, dir).Set(secrets.NewValue("v"), "first"); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	tokens := make([]string, 8)
	for i := range tokens {
		s := open(t, dir) // as another process would
		wait.Go(func() {
			v, err := s.Ensure(func() (string, error) { return fmt.Sprintf("token-%d", i), nil }, "k3s_token")
			if err != nil {
				t.Error(err)
			}
			tokens[i] = v.Reveal()
			if err := s.Set(secrets.NewValue("mine"), "own", fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	s := open(t, dir)
	for i, token := range tokens {
		if token != tokens[0] || token == "" {
			t.Errorf("process %d has token %q, the first %q", i, token, tokens[0])
		}
		if _, err := s.Get("own", fmt.Sprint(i)); err != nil {
			t.Errorf("an update was lost: %v", err)
		}
	}
}

func TestValueShowsNothing(t *testing.T) {
	v := secrets.NewValue("s3cret")
	type holder struct{ token secrets.Value }
	asJSON, err := json.Marshal(map[string]any{"v": v})
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(map[string]any{"v": v})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v, "all", []any{v}, "in", holder{v})
	shown := map[string]string{"JSON": string(asJSON), "YAML": string(asYAML), "log": log.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%e"} {
		for kind, arg := range map[string]any{"value": v, "pointer": &v, "list": []any{v}, "map": map[string]secrets.Value{"k": v}, "field": holder{v}} {
			shown[kind+" "+verb] = fmt.Sprintf(verb, arg)
		}
	}
	for name, text := range shown {
		if strings.Contains(text, "s3cret") || strings.Contains(strings.ToLower(text), fmt.Sprintf("%x", "s3cret")) {
			t.Errorf("%s shows it: %s", name, text)
		}
	}
	if got := v.Reveal() + (secrets.Value{}).Reveal(); got != "s3cret" {
		t.Errorf("revealed %q", got)
	}
}
