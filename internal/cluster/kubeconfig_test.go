package cluster_test

import (
	"os"
	"path/filepath"
	"testing"

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
