package k3s

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/goccy/go-yaml"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/desired"
)

const auditDir = "/var/log/k3s"

// hardened is what k3lab has K3s run with: the settings of its CIS profile, and
// the files they name, which it puts on the machine. Every part of the suite runs
// with them.
func hardened(t *testing.T, m *machine, role config.Role) string {
	t.Helper()
	node := &config.Machine{Name: m.name, Role: role, Enabled: true, IP: netip.MustParseAddr(m.ip), Arch: "amd64"}
	server := &config.Machine{Name: "other", Role: config.RoleServer, Enabled: true, IP: netip.MustParseAddr("192.0.2.1")}
	lab := &config.Lab{Machines: []*config.Machine{node, server}}
	lab.Security = config.Security{
		Profile: config.ProfileCIS, ExposeMetrics: true,
		PodSecurity: config.PodSecurity{Enforce: "privileged", Warn: "restricted", Audit: "restricted"},
		Audit:       config.Audit{MaxAgeDays: 1, MaxBackups: 1, MaxSizeMiB: 1},
	}
	if !m.lab.groups.unified { // kubelet accepts cgroup v1 when it is told to
		own := map[string]any{"kubelet-arg": []any{"fail-cgroupv1=false"}}
		lab.K3s.ServerConfig, lab.K3s.AgentConfig = own, own
	}
	state, err := desired.Node(lab, node, desired.Inputs{Token: token, JoinURL: "https://192.0.2.1:6443"})
	if err != nil {
		t.Fatal(err)
	}
	var settings map[string]any
	for _, r := range state.Resources {
		switch {
		case r.File != nil && r.File.Path == configFile:
			if err := yaml.Unmarshal([]byte(r.File.Content), &settings); err != nil {
				t.Fatal(err)
			}
		case r.File != nil && strings.HasPrefix(r.File.Path, "/etc/rancher/k3s/a"):
			m.write(t, r.File.Path, r.File.Content)
		case r.Directory != nil && r.Directory.Path == auditDir:
			m.run(t, "mkdir", "-p", "-m", "0700", auditDir)
		}
	}
	for key := range settings {
		if !strings.HasSuffix(key, "-arg") && key != "protect-kernel-defaults" && key != "etcd-expose-metrics" {
			delete(settings, key)
		}
	}
	text, err := yaml.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// hardenedArgs is the same as command line, as the node shows it.
func hardenedArgs(t *testing.T, m *machine, role config.Role) []string {
	t.Helper()
	var settings yaml.MapSlice
	if err := yaml.Unmarshal([]byte(hardened(t, m, role)), &settings); err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, s := range settings {
		values, ok := s.Value.([]any)
		if !ok {
			values = []any{s.Value}
		}
		for _, value := range values {
			args = append(args, fmt.Sprintf("--%v", s.Key), fmt.Sprint(value))
		}
	}
	return args
}

func hardening(t *testing.T, c *cluster) {
	m := c.first
	t.Run("kubelet asks who is there", func(t *testing.T) {
		soon(t, "answer", func() error {
			if code, body := get(t, m, "https://"+m.ip+":10250/pods", "", ""); code != http.StatusUnauthorized {
				return fmt.Errorf("code %d, want 401: %s", code, body)
			}
			return nil
		})
	})
	for name, port := range map[string]string{"API": "6443", "kubelet": "10250"} {
		t.Run("TLS of the "+name, func(t *testing.T) { handshakes(t, m, m.ip+":"+port) })
	}
	t.Run("metrics", func(t *testing.T) { metrics(t, m) })
	t.Run("pods that are not restricted are warned of", func(t *testing.T) { podSecurity(t, m) })
	t.Run("Secrets are encrypted in the datastore", func(t *testing.T) { encryption(t, m) })
	t.Run("audit log", func(t *testing.T) { audit(t, m) })
}

// handshakes holds a port to TLS 1.2 and suites with forward secrecy.
func handshakes(t *testing.T, m *machine, address string) {
	tests := map[string]struct {
		from, to uint16
		suites   []uint16
		good     bool
	}{
		"TLS 1.3": {from: tls.VersionTLS13, to: tls.VersionTLS13, good: true},
		"TLS 1.2": {from: tls.VersionTLS12, to: tls.VersionTLS12, good: true},
		"TLS 1.1": {from: tls.VersionTLS10, to: tls.VersionTLS11},
		"CBC":     {tls.VersionTLS12, tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}, false},
	}
	for name, test := range tests {
		conn, err := m.dial(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		client := tls.Client(conn, &tls.Config{
			InsecureSkipVerify: true, MinVersion: test.from, MaxVersion: test.to, CipherSuites: test.suites,
		})
		if err := client.HandshakeContext(t.Context()); (err == nil) != test.good {
			t.Errorf("%s: %v, want it accepted: %t", name, err, test.good)
		}
		conn.Close()
	}
}

// metrics of etcd and kube-proxy are open to whom the firewall lets through; the
// others ask for a token.
func metrics(t *testing.T, m *machine) {
	for url, want := range map[string]string{"http://" + m.ip + ":2381/metrics": "etcd_server_has_leader"} {
		if code, body := get(t, m, url, "", ""); code != http.StatusOK || m.real(t) && !strings.Contains(body, want) {
			t.Errorf("%s: code %d, %d bytes without %s", url, code, len(body), want)
		}
	}
	if code, _ := get(t, m, "http://"+m.ip+":10249/metrics", "", ""); code != http.StatusOK {
		t.Errorf("kube-proxy: code %d", code)
	}
	for _, port := range []string{"10257", "10259"} {
		url := "https://" + m.ip + ":" + port + "/metrics"
		if code, _ := get(t, m, url, "", ""); code != http.StatusForbidden && code != http.StatusUnauthorized {
			t.Errorf("%s without credentials: code %d", url, code)
		}
	}
}

// spoken collects the warnings of the API.
type spoken struct {
	mu   sync.Mutex
	text []string
}

func (s *spoken) HandleWarningHeader(_ int, _ string, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, text)
}

func podSecurity(t *testing.T, m *machine) {
	config, err := clientcmd.RESTConfigFromKubeConfig([]byte(m.read(t, "/etc/rancher/k3s/k3s.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	var said spoken
	config.Dial, config.WarningHandler = m.dial, &said
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []string{"kube-system", "default"} {
		if len(said.text) != 0 {
			t.Errorf("kube-system is not exempt: %q", said.text)
		}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "privileged"},
			Spec:       corev1.PodSpec{HostNetwork: true, Containers: []corev1.Container{{Name: "c", Image: "none"}}},
		}
		soon(t, namespace+" takes pods", func() error { // its service account comes a moment after it
			_, err := api.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		})
	}
	if len(said.text) != 1 || !strings.HasPrefix(said.text[0], `would violate PodSecurity "restricted:latest": host namespaces (hostNetwork=true)`) {
		t.Errorf("warnings: %q", said.text)
	}
}

// encryption searches the datastore's own files for what was written. What is in
// a ConfigMap is found, so the search works.
func encryption(t *testing.T, m *machine) {
	api := m.clients(t).CoreV1()
	hidden, open := "canary-in-secret", "canary-in-configmap"
	if _, err := api.Secrets("default").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "canary"}, Data: map[string][]byte{"key": []byte(hidden)},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "canary"}, Data: map[string]string{"key": open},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	soon(t, "ConfigMap in the datastore", func() error {
		if !m.datastoreHolds(t, open) {
			return fmt.Errorf("%q is not found", open)
		}
		return nil
	})
	if m.datastoreHolds(t, hidden) {
		t.Errorf("%q stands in the datastore", hidden)
	}
	if !m.datastoreHolds(t, "k8s:enc:aescbc:v1:aescbckey:") {
		t.Error("nothing in the datastore is marked as encrypted")
	}
}

func (m *machine) datastoreHolds(t *testing.T, text string) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(m.path(serverDir+"db/etcd/member"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || found {
			return err
		}
		data, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil // taken away meanwhile
		}
		found = bytes.Contains(data, []byte(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// audit looks for what encryption did, without contents, and has the log rotated.
func audit(t *testing.T, m *machine) {
	log := m.read(t, auditDir+"/audit.log")
	found := false
	for line := range strings.Lines(log) {
		var entry struct {
			Level, Verb    string
			RequestObject  any
			ResponseStatus struct{ Code int }
			ObjectRef      struct{ Resource, Namespace, Name string }
			User           struct{ Username string }
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			continue // being written
		}
		if entry.ObjectRef.Resource == "secrets" && entry.ObjectRef.Name == "canary" && entry.Verb == "create" {
			found = true
			if entry.Level != "Metadata" || entry.User.Username != "system:admin" || entry.ResponseStatus.Code != 201 || entry.RequestObject != nil {
				t.Errorf("logged as %s", line)
			}
		}
		if strings.Contains(line, `"resource":"leases"`) {
			t.Fatalf("heartbeats are logged: %s", line)
		}
	}
	if !found {
		t.Error("the creation of the Secret is not logged")
	}
	if strings.Contains(log, "canary-in-") {
		t.Error("contents are logged")
	}
	api := m.clients(t).Discovery().RESTClient()
	long := strings.Repeat("x", 60<<10) // the log keeps what was asked for
	for range 60 {
		if _, err := api.Get().AbsPath("/api/v1/namespaces/default/configmaps").Param("limit", "1").Param("of-no-meaning", long).DoRaw(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	soon(t, "rotation", func() error {
		entries, err := os.ReadDir(m.path(auditDir))
		if err != nil {
			return err
		}
		if len(entries) != 2 {
			return fmt.Errorf("%d files after 3.5 MiB, want one of at most 1 MiB and one kept", len(entries))
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				return err
			}
			if info.Mode() != 0o600 || info.Size() > 1<<20 {
				return fmt.Errorf("%s: mode %v, %d bytes", e.Name(), info.Mode(), info.Size())
			}
		}
		return nil
	})
}

// real reports whether the machine runs the release.
func (m *machine) real(t *testing.T) bool {
	t.Helper()
	return !strings.Contains(m.ok(t, "--version"), "stand-in")
}

// refusedByKubelet are settings with which K3s does not run: a node that only
// seemed hardened would be worse.
func refusedByKubelet(t *testing.T, c *cluster) {
	for _, test := range []struct{ name, config, log string }{
		{
			"a flag that kubelet does not know", "kubelet-arg+: [no-such-flag=1]\n",
			`failed to parse kubelet flag: unknown flag: --no-such-flag`,
		},
		{
			"a kernel that is not as kubelet wants it", "",
			`invalid kernel flag: vm/overcommit_memory, expected value: 1, actual value: 0`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.spare.remove(t, "/var/lib/rancher/k3s/server", "/var/lib/rancher/k3s/agent")
			c.spare.write(t, configFile, serverConfig(t, c.spare, "cluster-init: true\n"))
			c.spare.write(t, configFile+".d/10-more.yaml", test.config)
			defer c.spare.remove(t, configFile+".d/10-more.yaml", "/var/lib/rancher/k3s/server", "/var/lib/rancher/k3s/agent")
			if test.config == "" {
				c.spare.write(t, "/run/sysctl/vm.overcommit_memory", "0\n")
				defer c.spare.write(t, "/run/sysctl/vm.overcommit_memory", "1\n")
			}
			p := c.spare.start(t, "server")
			p.waitEnd(t)
			log, err := os.ReadFile(p.log)
			if err != nil {
				t.Fatal(err)
			}
			matches(t, "log", string(log), test.log)
		})
	}
}

// encryptionLater turns encryption on where a cluster began without it, by the
// steps that docs/security.md names. The stand-in refuses them.
func encryptionLater(t *testing.T, c *cluster) {
	m := c.spare
	if !m.real(t) {
		t.Skip("the stand-in cannot change encryption")
	}
	defer m.remove(t, "/var/lib/rancher/k3s/server", "/var/lib/rancher/k3s/agent")
	with := serverConfig(t, m, "cluster-init: true\n")
	m.write(t, configFile, strings.Replace(with, "secrets-encryption: true\n", "", 1))
	p := m.start(t, "server")
	p.waitReady(t)
	m.run(t, "/usr/local/bin/kubectl", "create", "secret", "generic", "old", "--from-literal=key=value")
	m.ok(t, "secrets-encrypt", "enable")
	if describe(m.path(serverDir+"cred/encryption-config.json")) != "-rw-------" {
		t.Error("there is no encryption configuration that k3lab would see")
	}
	p.stop(t)
	m.write(t, configFile, with)
	p = m.start(t, "server")
	defer p.stop(t)
	p.waitReady(t)
	wait(t, "the server's Node says which configuration it has", func() error {
		r := m.k3s(t, "kubectl", "get", "node", m.name, "-o", `jsonpath={.metadata.annotations.k3s\.io/encryption-config-hash}`)
		if r.code != 0 || r.stdout == "" {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
	m.ok(t, "secrets-encrypt", "rotate-keys")
	wait(t, "Secrets are encrypted", func() error {
		r := m.k3s(t, "secrets-encrypt", "status")
		if !strings.Contains(r.stdout, "Encryption Status: Enabled\nCurrent Rotation Stage: reencrypt_finished\n") {
			return fmt.Errorf("status: %s%s", r.stdout, r.stderr)
		}
		return nil
	})
	if got := m.ok(t, "kubectl", "get", "secret", "old", "-o", "jsonpath={.data.key}"); got != "dmFsdWU=" {
		t.Errorf("the Secret from before holds %q", got)
	}
}
