package op

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/desired"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/fleet"
	"github.com/k3lab/k3lab/internal/release"
)

// stocked is a workspace with files that settings refer to.
func stocked(t *testing.T) *supplies {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"ca.pem": "-----BEGIN CERTIFICATE-----\nx\n", "empty.pem": "", "key.pem": "-----BEGIN CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\n",
		"app.tar": "images",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &supplies{
		path: func(relative string) string { return filepath.Join(dir, relative) }, found: map[string]func() (release.File, error){},
		secret: func(key string) (string, error) {
			if key != "registry.home" {
				return "", errors.New("there is none of " + key)
			}
			return "s3cret", nil
		},
		source: &release.Source{Version: "v1.36.3+k3s1", CacheDir: filepath.Join(dir, "cache"), Locked: release.Digests{
			"k3s/v1.36.3+k3s1/k3s-airgap-images-amd64.tar.zst": digitsA, "k3s/v1.36.3+k3s1/k3s-airgap-images-arm64.tar.zst": digitsB,
		}},
	}
}

const appDigest = "21b2eed1e328a2c62fe4c17d51188bdea73450f29956dc5c8c95429313ddd72c"

// TestSettingsReadWhatTheyReferTo, and say which of it is not as it should be.
func TestSettingsReadWhatTheyReferTo(t *testing.T) {
	registry := func(c config.RegistryConfig) config.K3s {
		return config.K3s{Registries: config.Registries{Configs: []config.RegistryConfig{c}}}
	}
	none := desired.Inputs{Secrets: map[string]string{}, Files: map[string]string{}}
	tests := map[string]struct {
		k3s  config.K3s
		arch string
		want desired.Inputs
		err  string
	}{
		"nothing": {config.K3s{}, "amd64", none, ""},
		"a password and a CA": {
			registry(config.RegistryConfig{Host: "a", Username: "u", PasswordSecret: "registry.home", CAFile: "ca.pem"}), "amd64",
			desired.Inputs{Secrets: map[string]string{"registry.home": "s3cret"}, Files: map[string]string{"ca.pem": "-----BEGIN CERTIFICATE-----\nx\n"}}, "",
		},
		"a secret there is not": {registry(config.RegistryConfig{PasswordSecret: "other"}), "amd64", none, "there is none of other"},
		"a CA there is not":     {registry(config.RegistryConfig{CAFile: "none.pem"}), "amd64", none, "none.pem: no such file or directory (try: correct its path in ansible/group_vars/all.yaml)"},
		"a CA without content":  {registry(config.RegistryConfig{CAFile: "empty.pem"}), "amd64", none, "empty.pem: k3s.registries: it holds no certificate (try: put the CA's certificate there, as PEM)"},
		"a CA with its key":     {registry(config.RegistryConfig{CAFile: "key.pem"}), "amd64", none, "key.pem: k3s.registries: it holds a private key (try: leave only the certificate in it)"},
		"an archive there is not": {
			config.K3s{Images: []string{"none.tar"}}, "amd64", none,
			"none.tar: no such file or directory (try: correct its path in ansible/group_vars/all.yaml)",
		},
		"archives for amd64": {
			config.K3s{Images: []string{"airgap", "app.tar"}}, "amd64",
			desired.Inputs{Secrets: none.Secrets, Files: none.Files, Images: []desired.Archive{
				{Name: "k3s-airgap-images-amd64.tar.zst", SHA256: digitsA}, {Name: "app.tar", SHA256: appDigest, Size: 6},
			}}, "",
		},
		"archives for arm64": {
			config.K3s{Images: []string{"airgap"}}, "arm64",
			desired.Inputs{Secrets: none.Secrets, Files: none.Files, Images: []desired.Archive{{Name: "k3s-airgap-images-arm64.tar.zst", SHA256: digitsB}}}, "",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := stocked(t).settings(context.Background(), &config.Lab{K3s: tt.k3s}, tt.arch)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("got  %v\nwant %s", err, tt.err)
				}
				return
			}
			if d := cmp.Diff(tt.want, got); d != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, d)
			}
		})
	}
}

// TestArchiveIsCopiedFromItsFile of the machine's architecture.
func TestArchiveIsCopiedFromItsFile(t *testing.T) {
	s := stocked(t)
	lab := &config.Lab{K3s: config.K3s{Images: []string{"airgap", "app.tar"}}}
	a := &converger.Archive{Path: "/images/app.tar", Source: "/staged/app", SHA256: appDigest}
	got, err := s.archive(context.Background(), lab, "amd64", a)
	if d := cmp.Diff(fleet.Supply{From: s.path("app.tar"), To: "/staged/app", SHA256: appDigest, At: "/images/app.tar"}, got); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	a.SHA256 = strings.Repeat("0", 64)
	if _, err := s.archive(context.Background(), lab, "amd64", a); err == nil {
		t.Error("an archive nobody names was found")
	}
}

func TestRoomForImages(t *testing.T) {
	archive := func(path string, mib int64) converger.Resource {
		return converger.Resource{Archive: &converger.Archive{Path: path, Size: mib << 20}}
	}
	install := func(path string) converger.Change {
		return converger.Change{Resource: "archive " + path, Action: "install"}
	}
	state := converger.State{Resources: []converger.Resource{archive("/a", 600), archive("/b", 500)}}
	tests := map[string]struct {
		free  map[string]int
		found []converger.Change
		want  string
	}{
		"nobody knows":        {nil, []converger.Change{install("/a")}, ""},
		"nothing to copy":     {map[string]int{desired.ImagesDir: 0}, nil, ""},
		"one fits":            {map[string]int{desired.ImagesDir: 700}, []converger.Change{install("/a")}, ""},
		"only its mode":       {map[string]int{desired.ImagesDir: 7}, []converger.Change{{Resource: "archive /a", Action: "update"}}, ""},
		"both are not to fit": {map[string]int{desired.ImagesDir: 700}, []converger.Change{install("/a"), install("/b")}, "agent-1: k3s.images: 1100 MiB are to be copied to /var/lib/rancher/k3s/agent/images, where 700 MiB are free (try: k3lab ssh agent-1 -- sudo du -xh -d 3 / | sort -h; or more disk_gib in terraform/vars/nodes.yaml)"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := ""
			err := roomForImages(&config.Machine{Name: "agent-1"}, converger.Facts{DiskFreeMiB: tt.free}, state, tt.found)
			if err != nil {
				got = err.Error()
			}
			if got != tt.want || err != nil && fault.KindOf(err) != fault.Failed {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestEachArchitectureHasItsOwn: in a lab of both, each machine is given binary and
// converger of its own, and a machine that is of another one than the settings say
// is refused.
func TestEachArchitectureHasItsOwn(t *testing.T) {
	programs := map[string][]byte{}
	for _, arch := range []string{"amd64", "arm64"} {
		b, err := fleet.Converger(arch)
		if err != nil {
			t.Skip(err) // built by make
		}
		programs[arch] = b.Content[18:20] // e_machine of an ELF file
	}
	if d := cmp.Diff(map[string][]byte{"amd64": {62, 0}, "arm64": {183, 0}}, programs); d != "" {
		t.Errorf("convergers are for (-want +got):\n%s", d)
	}
	tests := map[string]struct{ settings, machine, digest, want string }{
		"amd64": {"amd64", "amd64", digitsA, ""},
		"arm64": {"arm64", "arm64", digitsB, ""},
		"another one": {
			"amd64", "arm64", "",
			"server-1: the machine's processor is arm64, the settings say amd64 (try: set arch: arm64 in terraform/vars/nodes.yaml)",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			c := w.step(t)
			s, _ := pinned(t, nil, both)
			c.supplies.source, c.supplies.found = s.supplies.source, map[string]func() (release.File, error){}
			m := c.lab.Machine("server-1")
			m.Arch = tt.settings
			facts := w.facts["server-1"]
			facts.Arch = tt.machine
			state, err := c.desired(context.Background(), m, facts, beginning{bootstrap: "server-1"})
			if tt.want != "" {
				if err == nil || err.Error() != tt.want {
					t.Errorf("got  %v\nwant %s", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var binaries []string
			for _, r := range state.Resources {
				if r.Binary != nil {
					binaries = append(binaries, r.Binary.SHA256)
				}
			}
			if d := cmp.Diff([]string{tt.digest}, binaries); d != "" {
				t.Errorf("binaries (-want +got):\n%s", d)
			}
		})
	}
}
