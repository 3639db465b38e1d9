package pki

import (
	"crypto/x509"
	"os"
	"testing"
	"time"

	"github.com/k3lab/k3lab/standin/internal/datadir"
)

func makeTree(t *testing.T, dir datadir.Dir, sans ...string) {
	t.Helper()
	if err := dir.MakeServer(); err != nil {
		t.Fatal(err)
	}
	names := ServerNames{API: append([]string{"127.0.0.1"}, sans...), Etcd: []string{"127.0.0.1"}, APIURL: "https://127.0.0.1:6443"}
	if err := EnsureServer(dir, names); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := ParseCerts(data)
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

func TestTree(t *testing.T) {
	dir := datadir.Dir(t.TempDir())
	makeTree(t, dir)
	for leaf, ca := range map[string]string{
		"client-admin": "client-ca", "serving-kube-apiserver": "server-ca", "client-auth-proxy": "request-header-ca",
		"etcd/client": "etcd/server-ca", "etcd/server-client": "etcd/server-ca", "etcd/peer-server-client": "etcd/peer-ca",
	} {
		cert, authority := load(t, dir.TLS(leaf+".crt")), load(t, dir.TLS(ca+".crt"))
		if err := cert.CheckSignatureFrom(authority); err != nil {
			t.Errorf("%s is not signed by %s: %v", leaf, ca, err)
		}
		if days := time.Until(cert.NotAfter).Hours() / 24; days < 364 || days > 365 {
			t.Errorf("%s lasts %.1f days, want 365", leaf, days)
		}
		if years := time.Until(authority.NotAfter).Hours() / 24 / 365; years < 9.9 || years > 10 {
			t.Errorf("%s lasts %.1f years, want 10", ca, years)
		}
	}
	for _, kubeconfig := range []string{"admin", "controller", "scheduler", "supervisor"} {
		if info, err := os.Stat(dir.Cred(kubeconfig + ".kubeconfig")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s.kubeconfig: %v, %v, want mode 0600", kubeconfig, info, err)
		}
	}
}

func TestLeavesAreKeptWhileGood(t *testing.T) {
	dir := datadir.Dir(t.TempDir())
	makeTree(t, dir)
	admin, serving := load(t, dir.TLS("client-admin.crt")), load(t, dir.TLS("serving-kube-apiserver.crt"))

	makeTree(t, dir)
	if !load(t, dir.TLS("serving-kube-apiserver.crt")).Equal(serving) {
		t.Error("a good certificate was made anew")
	}
	makeTree(t, dir, "vip.example.test", "198.18.0.9")
	again := load(t, dir.TLS("serving-kube-apiserver.crt"))
	if again.Equal(serving) || again.VerifyHostname("vip.example.test") != nil || again.VerifyHostname("198.18.0.9") != nil {
		t.Error("new names are not in the certificate")
	}
	if !load(t, dir.TLS("client-admin.crt")).Equal(admin) {
		t.Error("new names made another certificate anew")
	}
	for _, ext := range []string{".crt", ".key"} {
		if err := os.Remove(dir.TLS("client-ca" + ext)); err != nil {
			t.Fatal(err)
		}
	}
	makeTree(t, dir)
	if err := load(t, dir.TLS("client-admin.crt")).CheckSignatureFrom(load(t, dir.TLS("client-ca.crt"))); err != nil {
		t.Errorf("a new authority did not sign anew: %v", err)
	}
}

// TestRemoveFindsTheNodesCertificates: those of the kubelet lie with the agent.
func TestRemoveFindsTheNodesCertificates(t *testing.T) {
	dir := datadir.New(t.TempDir())
	for service, leaves := range LeafFiles() {
		for _, leaf := range leaves {
			path := dir.TLS(leaf)
			if service == "kubelet" {
				path = dir.Agent(leaf)
			}
			for _, file := range []string{path + ".crt", path + ".key"} {
				if err := datadir.WriteFile(file, []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := Remove(dir, leaf); err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{path + ".crt", path + ".key"} {
				if _, err := os.Stat(file); !os.IsNotExist(err) {
					t.Errorf("%s: %s is still there", service, file)
				}
			}
		}
	}
}
