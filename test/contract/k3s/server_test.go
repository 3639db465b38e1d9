package k3s

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

const serverDir = "/var/lib/rancher/k3s/server/"

// startFirst starts a server from a configuration file and its drop-ins.
func startFirst(t *testing.T, c *cluster) {
	c.first.write(t, configFile, serverConfig(t, c.first, `cluster-init: true
write-kubeconfig-mode: "0644"
tls-san: [replaced.example]
node-label: [example/base=1]
`))
	c.first.write(t, configFile+".d/10-more.yaml", `write-kubeconfig-mode: "0640"
node-label+: [example/ten=10]
`)
	c.first.write(t, configFile+".d/20-more.yaml", `tls-san: [extra.example]
no-such-key: 1
node-label+: [example/twenty=20]
`)
	c.first.write(t, configFile+".d/30-ignored.txt", "no-such-key: 1\n")
	p := c.launch(t, c.first, "server")
	p.waitReady(t)
	p.waitLog(t, `level=warning msg="Unknown flag --no-such-key found in config.yaml, skipping\n"`)
	waitNodes(t, c.first, "server-1")
}

// waitNodes waits until exactly these Nodes are there and Ready.
func waitNodes(t *testing.T, m *machine, names ...string) {
	t.Helper()
	api := m.clients(t)
	wait(t, "nodes", func() error {
		nodes, err := api.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		var ready []string
		for _, node := range nodes.Items {
			for _, condition := range node.Status.Conditions {
				if condition.Type == "Ready" && condition.Status == "True" {
					ready = append(ready, node.Name)
				}
			}
		}
		if len(ready) != len(nodes.Items) || !cmp.Equal(ready, names) {
			return fmt.Errorf("ready are %q of %d, want %q", ready, len(nodes.Items), names)
		}
		return nil
	})
}

func configurationFiles(t *testing.T, c *cluster) {
	t.Run("lists are appended to by key+", func(t *testing.T) {
		node := getNode(t, c.first, "server-1")
		got := map[string]string{}
		for key, value := range node.Labels {
			if strings.HasPrefix(key, "example/") {
				got[key] = value
			}
		}
		want := map[string]string{"example/base": "1", "example/ten": "10", "example/twenty": "20"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("values are replaced by later files", func(t *testing.T) {
		info, err := os.Stat(c.first.path("/etc/rancher/k3s/k3s.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o640 {
			t.Errorf("k3s.yaml has mode %v, want 0640", info.Mode())
		}
	})
	t.Run("names in the serving certificate", func(t *testing.T) {
		certificate := serving(t, c.first)
		for _, name := range []string{"extra.example", "server-1", "localhost", "kubernetes", "kubernetes.default.svc.cluster.local"} {
			if err := certificate.VerifyHostname(name); err != nil {
				t.Error(err)
			}
		}
		for _, ip := range []string{c.first.ip, "127.0.0.1", "10.43.0.1"} {
			if err := certificate.VerifyHostname(ip); err != nil {
				t.Error(err)
			}
		}
		if err := certificate.VerifyHostname("replaced.example"); err == nil {
			t.Error("replaced.example is in the certificate although a later file replaced the list")
		}
	})
}

// serving is the certificate shown at port 6443.
func serving(t *testing.T, m *machine) *x509.Certificate {
	t.Helper()
	conn, err := m.dial(t.Context(), "tcp", m.ip+":6443")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return client.ConnectionState().PeerCertificates[0]
}

// caHash is what tokens name the cluster by.
func caHash(t *testing.T, m *machine) string {
	t.Helper()
	sum := sha256.Sum256([]byte(m.read(t, serverDir+"tls/server-ca.crt")))
	return hex.EncodeToString(sum[:])
}

func files(t *testing.T, c *cluster) {
	want := map[string]string{
		"/etc/rancher/node/password":               "-rw-------",
		serverDir:                                  "drwx------",
		serverDir + "token":                        "-rw-------",
		serverDir + "node-token":                   "-> " + serverDir + "token",
		serverDir + "agent-token":                  "-> " + serverDir + "token",
		serverDir + "cred":                         "drwx------",
		serverDir + "db":                           "drwx------",
		serverDir + "db/etcd":                      "drwx------",
		serverDir + "db/snapshots":                 "drwx------",
		serverDir + "etc":                          "drwx------",
		serverDir + "manifests":                    "drwx------",
		serverDir + "tls":                          "drwx------",
		serverDir + "tls/server-ca.crt":            "-rw-r--r--",
		serverDir + "tls/server-ca.key":            "-rw-------",
		serverDir + "tls/client-ca.crt":            "-rw-r--r--",
		serverDir + "tls/request-header-ca.crt":    "-rw-r--r--",
		serverDir + "tls/client-admin.crt":         "-rw-r--r--",
		serverDir + "tls/client-admin.key":         "-rw-------",
		serverDir + "tls/etcd/server-ca.crt":       "-rw-r--r--",
		serverDir + "tls/etcd/peer-ca.crt":         "-rw-r--r--",
		serverDir + "tls/etcd/server-client.crt":   "-rw-r--r--",
		serverDir + "tls/etcd/client.key":          "-rw-------",
		serverDir + "cred/encryption-config.json":  "-rw-------",
		"/var/lib/rancher/k3s/agent":               "drwx------",
		"/var/lib/rancher/k3s/agent/client-ca.crt": "-rw-------",
	}
	soon(t, "files", func() error { // some come a moment after READY=1
		got := map[string]string{}
		for path := range want {
			got[path] = describe(c.first.path(path))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
	t.Run("token", func(t *testing.T) {
		want := "K10" + caHash(t, c.first) + "::server:" + token + "\n"
		if got := c.first.read(t, serverDir+"token"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("node password", func(t *testing.T) {
		matches(t, "password", c.first.read(t, "/etc/rancher/node/password"), `^[0-9a-f]{32}\n$`)
	})
	t.Run("lifetimes", func(t *testing.T) {
		for file, years := range map[string]int{"tls/server-ca.crt": 10, "tls/client-admin.crt": 1, "tls/etcd/client.crt": 1} {
			block, _ := pem.Decode([]byte(c.first.read(t, serverDir+file)))
			certificate, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			days := time.Until(certificate.NotAfter).Hours() / 24
			if days < float64(years)*365-2 || days > float64(years)*366+2 {
				t.Errorf("%s lasts %.0f days, want %d years", file, days, years)
			}
		}
	})
}

// describe is a file's mode, or where a link leads.
func describe(path string) string {
	info, err := os.Lstat(path)
	if err != nil {
		return errors.Unwrap(err).Error()
	}
	if info.Mode()&os.ModeSymlink == 0 {
		return info.Mode().String()
	}
	target, err := os.Readlink(path)
	if err != nil {
		return err.Error()
	}
	return "-> " + target
}

func kubeconfig(t *testing.T, c *cluster) {
	got, err := clientcmd.Load([]byte(c.first.read(t, "/etc/rancher/k3s/k3s.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	if got.CurrentContext != "default" {
		t.Errorf("current context %q, want default", got.CurrentContext)
	}
	chosen := got.Contexts["default"]
	if chosen == nil || chosen.Cluster != "default" || chosen.AuthInfo != "default" {
		t.Fatalf("context default: %+v", chosen)
	}
	if server := got.Clusters["default"].Server; server != "https://127.0.0.1:6443" {
		t.Errorf("server %q", server)
	}
	if ca := string(got.Clusters["default"].CertificateAuthorityData); ca != c.first.read(t, serverDir+"tls/server-ca.crt") {
		t.Errorf("certificate authority is not the server CA:\n%s", ca)
	}
	block, _ := pem.Decode(got.AuthInfos["default"].ClientCertificateData)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if subject := certificate.Subject.String(); subject != "CN=system:admin,O=system:masters" {
		t.Errorf("client certificate of %q", subject)
	}
}

func ports(t *testing.T, c *cluster) {
	ip := c.first.ip
	want := map[string]bool{}
	for _, address := range []string{
		"*:6443", "*:10250", ip + ":2379", ip + ":2380", "127.0.0.1:2379", "127.0.0.1:2380", "127.0.0.1:2381", ip + ":2381",
		"127.0.0.1:6444", "127.0.0.1:10248", ip + ":10249", "127.0.0.1:10256", ip + ":10257", "127.0.0.1:10258", ip + ":10259",
	} {
		want[address] = true
	}
	known := map[string]bool{}
	for address := range want {
		known[address[strings.LastIndex(address, ":"):]] = true
	}
	soon(t, "listening", func() error {
		got := map[string]bool{}
		for address := range c.first.listening(t) {
			if known[address[strings.LastIndex(address, ":"):]] {
				got[address] = true
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}
