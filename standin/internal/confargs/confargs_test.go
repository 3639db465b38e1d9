package confargs

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"no file", nil, nil},
		{"order and kinds", map[string]string{
			"config.yaml": "token: abc\ncluster-init: true\nhttps-listen-port: 6443\ndisable: [traefik, servicelb]\nv: 2\n",
		}, []string{"--token=abc", "--cluster-init=true", "--https-listen-port=6443", "--disable=traefik", "--disable=servicelb", "-v=2"}},
		{"a later file replaces", map[string]string{
			"config.yaml":           "token: abc\ndisable: [traefik]\n",
			"config.yaml.d/a.yaml":  "disable: [servicelb]\n",
			"config.yaml.d/b.yml":   "token: def\n",
			"config.yaml.d/c.other": "token: ignored\n",
		}, []string{"--token=def", "--disable=servicelb"}},
		{"a plus appends", map[string]string{
			"config.yaml":          "tls-san: a\n",
			"config.yaml.d/1.yaml": "tls-san+: [b]\nnode-label+: [x=1]\n",
			"config.yaml.d/2.yaml": "tls-san+: c\n",
		}, []string{"--tls-san=a", "--tls-san=b", "--tls-san=c", "--node-label=x=1"}},
		{"drop-ins alone", map[string]string{"config.yaml.d/1.yaml": "debug: yes\n"}, []string{"--debug=true"}},
		{"quoted stays", map[string]string{"config.yaml": "write-kubeconfig-mode: \"0644\"\ntoken: 'yes'\n"},
			[]string{"--write-kubeconfig-mode=0644", "--token=yes"}},
		{"empty file", map[string]string{"config.yaml": "# nothing\n"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(EnvFile, "")
			dir := write(t, c.files)
			got, err := Expand(nil, filepath.Join(dir, "config.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestExpandRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"nested mapping": {"kubelet-arg:\n  a: b\n", "config.yaml:1: kubelet-arg: must be a plain value or a list of them"},
		"nested list":    {"token: a\ndisable: [[x]]\n", "config.yaml:2: disable: a list may hold plain values only"},
		"not a mapping":  {"- a\n", "config.yaml:1: the configuration must be a mapping of flags to values"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, map[string]string{"config.yaml": c.text})
			_, err := Expand(nil, filepath.Join(dir, "config.yaml"))
			if err == nil || !strings.HasSuffix(err.Error(), c.want) {
				t.Errorf("got %v, want …%s", err, c.want)
			}
		})
	}
}

func TestChosenFileMustExist(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	for _, args := range [][]string{{"--config", missing}, {"-c=" + missing}} {
		if _, err := Expand(args, "/nonexistent"); !os.IsNotExist(err) {
			t.Errorf("%q: got %v, want a file that does not exist", args, err)
		}
	}
}

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
