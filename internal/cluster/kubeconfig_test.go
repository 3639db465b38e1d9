package cluster_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3lab/k3lab/internal/cluster"
)

const onServer = `apiVersion: v1
kind: Config
clusters:
- name: default
  cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: Q0E=}
contexts:
- name: default
  context: {cluster: default, user: default}
current-context: default
users:
- name: default
  user: {client-certificate-data: Q0VSVA==, client-key-data: S0VZ}
`

const users = `apiVersion: v1
kind: Config
clusters:
- {name: work, cluster: {server: "https://work.example.org"}}
- {name: home, cluster: {server: "https://old.example.org"}}
contexts:
- {name: work, context: {cluster: work, user: me}}
current-context: work
users:
- {name: me, user: {token: t}}
`

func TestKubeconfig(t *testing.T) {
	got, err := cluster.Kubeconfig([]byte(onServer), "https://192.0.2.10:6443", "home")
	if err != nil {
		t.Fatal(err)
	}
	c, err := clientcmd.Load(got)
	if err != nil {
		t.Fatal(err)
	}
	if c.CurrentContext != "home" || c.Clusters["home"].Server != "https://192.0.2.10:6443" || len(c.Clusters) != 1 ||
		string(c.Clusters["home"].CertificateAuthorityData) != "CA" || string(c.AuthInfos["home"].ClientKeyData) != "KEY" {
		t.Errorf("got %+v", c)
	}
	for name, bad := range map[string]string{"no YAML": "{", "empty": "", "no context": "apiVersion: v1\nkind: Config\ncurrent-context: x\n"} {
		if _, err := cluster.Kubeconfig([]byte(bad), "https://x", "home"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestMergeKubeconfigKeepsWhatIsThere(t *testing.T) {
	mine, err := cluster.Kubeconfig([]byte(onServer), "https://192.0.2.10:6443", "home")
	if err != nil {
		t.Fatal(err)
	}
	for _, use := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "dir", "config")
		if err := cluster.WriteKubeconfig(path, []byte(users)); err != nil {
			t.Fatal(err)
		}
		if err := cluster.MergeKubeconfig(path, mine, use); err != nil {
			t.Fatal(err)
		}
		c, err := clientcmd.LoadFromFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{"current": c.CurrentContext, "token": c.AuthInfos["me"].Token}
		for name, cl := range c.Clusters {
			got[name] = cl.Server
		}
		want := map[string]string{"current": "work", "token": "t", "work": "https://work.example.org", "home": "https://192.0.2.10:6443"}
		if use {
			want["current"] = "home"
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("use=%v (-want +got):\n%s", use, d)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
		}
	}
}

func TestMergeKubeconfigIntoNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	mine, err := cluster.Kubeconfig([]byte(onServer), "https://192.0.2.10:6443", "home")
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.MergeKubeconfig(path, mine, false); err != nil {
		t.Fatal(err)
	}
	if c, err := clientcmd.LoadFromFile(path); err != nil || c.CurrentContext != "home" {
		t.Errorf("got %+v, %v", c, err)
	}
}

// certified is a kubeconfig as a server writes it, with a client certificate
// of its own that ends at the given time.
func certified(t *testing.T, ca string, end time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := clientcmd.Load([]byte(onServer))
	if err != nil {
		t.Fatal(err)
	}
	c.Clusters["default"].CertificateAuthorityData = []byte(ca)
	c.AuthInfos["default"].ClientCertificateData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	text, err := clientcmd.Write(*c)
	if err != nil {
		t.Fatal(err)
	}
	out, err := cluster.Kubeconfig(text, "https://192.0.2.10:6443", "home")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestStillGood(t *testing.T) {
	now := time.Now()
	fresh := certified(t, "CA", now.AddDate(1, 0, 0))
	tests := map[string]struct {
		kept []byte
		want bool
	}{
		"the same":                         {fresh, true},
		"issued by another server":         {certified(t, "CA", now.AddDate(0, 6, 0)), true},
		"ends soon":                        {certified(t, "CA", now.AddDate(0, 0, 20)), false},
		"of a cluster that was there once": {certified(t, "other CA", now.AddDate(1, 0, 0)), false},
		"of another lab":                   {[]byte(users), false},
		"no kubeconfig":                    {[]byte("{"), false},
		"no certificate":                   {[]byte(onServer), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := cluster.StillGood(tt.kept, fresh, now); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
