package infra

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/config"
)

func TestCLIConfig(t *testing.T) {
	mirror := t.TempDir()
	for _, source := range []string{"registry.terraform.io/bpg/proxmox", "registry.opentofu.org/bpg/proxmox"} {
		if err := os.MkdirAll(filepath.Join(mirror, source, "0.80.0", "linux_amd64"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]string{"direct": "", "mirror": mirror}
	for name, dir := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := cliConfig("/ws/.k3lab/plugins", dir)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "terraform.rc/"+name, strings.ReplaceAll(string(got), mirror, "/mirror"))
		})
	}
}

func TestEmptyMirrorIsRefused(t *testing.T) {
	dir := t.TempDir()
	_, err := cliConfig("/plugins", dir)
	want := dir + ": the provider mirror holds no provider (try: make build)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestPluginVersion(t *testing.T) {
	tests := map[string]string{
		"v1.2.3":            "1.2.3",
		"1.2.3-rc1+g0badc0": "1.2.3",
		"0.0.0":             "0.0.1",
		"dev":               "0.0.1",
		"":                  "0.0.1",
	}
	for in, want := range tests {
		if got := pluginVersion(in); got != want {
			t.Errorf("pluginVersion(%q) = %q, want %q", in, got, want)
		}
	}
}

func certificate(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"}, NotAfter: time.Now().Add(time.Hour), IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestCABundle(t *testing.T) {
	cert := string(certificate(t))
	tests := map[string]struct {
		file    *string // text of the authority's file; nil: missing
		want    string
		wantErr string
	}{
		"own authority": {file: &cert, want: "# system\n# endpoint home\n" + cert},
		"missing":       {wantErr: "endpoints.home.ca_file: open DIR/ca.pem: no such file or directory (try: copy /etc/pve/pve-root-ca.pem of a hypervisor to ca.pem)"},
		"no certificate": {file: new(string),
			wantErr: "endpoints.home.ca_file: ca.pem holds no certificate (try: copy /etc/pve/pve-root-ca.pem of a hypervisor to ca.pem)"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			system := filepath.Join(dir, "system.pem")
			if err := os.WriteFile(system, []byte("# system\n\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			t.Setenv("SSL_CERT_FILE", system)
			if tt.file != nil {
				if err := os.WriteFile(filepath.Join(dir, "ca.pem"), []byte(*tt.file), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			lab := &config.Lab{}
			lab.Proxmox.Endpoints = []config.Endpoint{{Name: "home", CAFile: "ca.pem"}, {Name: "garage", CAFile: "ca.pem"}, {Name: "public"}}
			got, err := caBundle(dir, lab)
			if text := strings.ReplaceAll(errorText(err), dir, "DIR"); text != tt.wantErr {
				t.Fatalf("error %q, want %q", text, tt.wantErr)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("bundle (-want +got):\n%s", diff)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestWriteSupportLinksTheNewestBinary(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", filepath.Join(dir, "home"))
	if err := os.MkdirAll(filepath.Join(dir, ".k3lab"), 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join("k3lab.internal", "k3lab", "k3lab", "1.2.3", runtime.GOOS+"_"+runtime.GOARCH, "terraform-provider-k3lab_v1.2.3")
	for _, binary := range []string{"/usr/bin/k3lab", "/opt/k3lab"} {
		if err := WriteSupport(Options{Dir: dir, Lab: &config.Lab{}, PluginBinary: binary, Version: "1.2.3"}); err != nil {
			t.Fatal(err)
		}
		for _, plugins := range []string{".k3lab/plugins", "home/.terraform.d/plugins"} {
			if got, err := os.Readlink(filepath.Join(dir, plugins, link)); err != nil || got != binary {
				t.Errorf("%s links to %q (%v), want %q", plugins, got, err, binary)
			}
		}
	}
}

func TestDropOwnLock(t *testing.T) {
	const other = `# This file is maintained automatically by "terraform init".
# Manual edits may be lost in future updates.

provider "registry.terraform.io/bpg/proxmox" {
  version = "0.80.0"
  hashes = [
    "h1:x=",
  ]
}
`
	const own = `
provider "k3lab.internal/k3lab/k3lab" {
  version = "0.0.0"
  hashes = [
    "h1:y=",
  ]
}
`
	path := filepath.Join(t.TempDir(), ".terraform.lock.hcl")
	if err := dropOwnLock(path); err != nil {
		t.Errorf("without a lock file: %v", err)
	}
	for name, text := range map[string]string{"with ours": other + own, "without": other} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := dropOwnLock(path); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(other, strings.TrimRight(string(got), "\n")+"\n"); diff != "" {
				t.Errorf("lock file (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	opts := Options{Dir: dir, Lab: &config.Lab{}, PluginBinary: "/usr/bin/k3lab", Tokens: map[string]string{"home": "root@pam!k3lab=s3cret"}}
	got, err := Env(opts)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"TF_CLI_CONFIG_FILE":        dir + "/.k3lab/terraform.rc",
		"SSL_CERT_FILE":             dir + "/.k3lab/ca-bundle.pem",
		"TF_VAR_proxmox_api_tokens": `{"home":"root@pam!k3lab=s3cret"}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("by hand (-want +got):\n%s", diff)
	}
	clean := cleanEnviron([]string{
		"HOME=/home/me", "PATH=/bin", "https_proxy=http://p", "AWS_PROFILE=lab", "SOPS_AGE_KEY_FILE=/k", "TF_TOKEN_app_terraform_io=t",
		"TF_CLI_ARGS=-destroy", "TF_WORKSPACE=other", "TF_VAR_x=1", "PROXMOX_VE_INSECURE=true", "SSL_CERT_FILE=/other", "EMPTY", "LD_PRELOAD=x",
	}, opts)
	want = map[string]string{
		"HOME": "/home/me", "PATH": "/bin", "https_proxy": "http://p", "AWS_PROFILE": "lab", "SOPS_AGE_KEY_FILE": "/k", "TF_TOKEN_app_terraform_io": "t",
		"TF_CLI_CONFIG_FILE": dir + "/.k3lab/terraform.rc", "SSL_CERT_FILE": dir + "/.k3lab/ca-bundle.pem",
	}
	if diff := cmp.Diff(want, clean); diff != "" {
		t.Errorf("of terraform (-want +got):\n%s", diff)
	}
}

func TestFindBinary(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"both/terraform", "both/tofu", "tofu-only/tofu", "elsewhere/mine"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cached := filepath.Join(dir, "cache", "terraform-"+pinnedTerraform, "terraform")
	if err := os.MkdirAll(filepath.Dir(cached), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cached, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		path    string
		opts    Options
		want    string
		wantErr string
	}{
		"configured":         {"both", Options{Binary: filepath.Join(dir, "elsewhere/mine")}, "elsewhere/mine", ""},
		"configured by name": {"tofu-only", Options{Binary: "tofu"}, "tofu-only/tofu", ""},
		"configured, gone": {"both", Options{Binary: "/nowhere/tofu"}, "",
			`/nowhere/tofu: the terraform binary asked for cannot be run: exec: "/nowhere/tofu": stat /nowhere/tofu: no such file or directory`},
		"terraform first":   {"both", Options{Fallback: filepath.Join(dir, "elsewhere/mine")}, "both/terraform", ""},
		"tofu":              {"tofu-only", Options{}, "tofu-only/tofu", ""},
		"fallback":          {"none", Options{Fallback: filepath.Join(dir, "elsewhere/mine"), CacheDir: filepath.Join(dir, "cache")}, "elsewhere/mine", ""},
		"downloaded before": {"none", Options{CacheDir: filepath.Join(dir, "cache")}, "cache/terraform-" + pinnedTerraform + "/terraform", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PATH", filepath.Join(dir, tt.path))
			got, err := findBinary(t.Context(), tt.opts)
			if text := errorText(err); text != tt.wantErr {
				t.Fatalf("error %q, want %q", text, tt.wantErr)
			}
			if want := filepath.Join(dir, tt.want); tt.want != "" && got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}
