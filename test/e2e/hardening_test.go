package e2e

import (
	"context"
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

var servers = []string{"server-1", "server-2", "server-3"}

// said collects the warnings of the API.
type said struct {
	mu   sync.Mutex
	text []string
}

func (s *said) HandleWarningHeader(_ int, _ string, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, text)
}

// hardened holds the cluster to its CIS profile, from outside and on the machines.
func hardened(t *testing.T, l *lab) {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(l.dir, ".k3lab/kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	var warned said
	config.WarningHandler, config.Timeout = &warned, 20*time.Second
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	vip := vipOf(t, l).String()
	agent := strings.Fields(l.onMachine("agent-1", "hostname", "-I"))[0]
	if code := anonymous(t, "https://"+vip+":6443/readyz"); code != http.StatusUnauthorized {
		t.Errorf("the API answers %d without credentials, want 401", code)
	}
	// The firewall lets nodes ask kubelets, and nobody else.
	if code := l.asks("server-1", "https://"+agent+":10250/pods"); code != "401" {
		t.Errorf("kubelet answers %s without credentials, want 401", code)
	}
	oldTLSRefused(t, vip+":6443")
	atRest(t, l, api)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "privileged"},
		Spec:       corev1.PodSpec{HostPID: true, Containers: []corev1.Container{{Name: "c", Image: "none"}}},
	}
	if _, err := api.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Error(err)
	}
	if len(warned.text) != 1 || !strings.HasPrefix(warned.text[0], `would violate PodSecurity "restricted:latest": host namespaces (hostPID=true)`) {
		t.Errorf("warnings for a privileged pod: %q", warned.text)
	}
	logged := 0
	for _, s := range servers {
		log := l.onMachine(s, "cat", "/var/log/k3s/audit.log")
		if strings.Contains(log, "canary-in-") {
			t.Errorf("%s: the audit log has contents", s)
		}
		for line := range strings.Lines(log) {
			if strings.Contains(line, `"verb":"create"`) && strings.Contains(line, `"resource":"secrets","namespace":"default","name":"canary-at-rest"`) {
				logged++
			}
		}
		modes(t, l, s)
	}
	if logged != 1 {
		t.Errorf("the creation of a Secret is logged %d times, want once", logged)
	}
}

func anonymous(t *testing.T, url string) int {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// asks is the code that a machine gets for an URL, without credentials.
func (l *lab) asks(machine, url string) string {
	l.t.Helper()
	return strings.TrimSpace(l.onMachine(machine, "curl", "--silent", "--insecure", "--max-time", "10", "--output", "/dev/null", "--write-out", "%{http_code}", url))
}

// oldTLSRefused tries what must not work, and what must.
func oldTLSRefused(t *testing.T, address string) {
	t.Helper()
	cbc := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}
	for name, config := range map[string]*tls.Config{
		"TLS 1.1":               {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		"TLS 1.2 with CBC":      {MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, CipherSuites: cbc},
		"TLS 1.2, as it should": {MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12},
	} {
		config.InsecureSkipVerify = true
		conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", address)
		if err == nil {
			conn.Close()
		}
		if (err == nil) != (config.CipherSuites == nil && config.MaxVersion == tls.VersionTLS12) {
			t.Errorf("%s: %s: %v", address, name, err)
		}
	}
}

// atRest searches the datastore's files for what a Secret says. The same search
// finds what a ConfigMap says.
func atRest(t *testing.T, l *lab, api kubernetes.Interface) {
	t.Helper()
	ctx := context.Background()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "canary-at-rest"}, StringData: map[string]string{"key": "canary-in-secret"}}
	if _, err := api.CoreV1().Secrets("default").Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	open := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "canary-at-rest"}, Data: map[string]string{"key": "canary-in-configmap"}}
	if _, err := api.CoreV1().ConfigMaps("default").Create(ctx, open, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	holds := func(server, text string) bool {
		found := l.onMachine(server, "sh", "-c", `'grep -rlaF -e `+text+` /var/lib/rancher/k3s/server/db/etcd/member || true'`)
		return strings.TrimSpace(found) != ""
	}
	for _, s := range servers {
		eventually(t, 20*time.Second, s+" has the ConfigMap in its datastore", func() bool { return holds(s, "canary-in-configmap") })
		if holds(s, "canary-in-secret") {
			t.Errorf("%s: the datastore holds a Secret as it is", s)
		}
	}
}

// modes are those of K3s's self-assessment, on the paths K3s has.
func modes(t *testing.T, l *lab, server string) {
	t.Helper()
	const dir = "/var/lib/rancher/k3s/server"
	find := `'find /etc/rancher/k3s/config.yaml /etc/rancher/k3s/token /etc/rancher/k3s/k3s.yaml /etc/rancher/k3s/admission.yaml ` +
		`/etc/rancher/k3s/audit-policy.yaml /var/log/k3s ` + dir + `/db/etcd ` + dir + `/cred ` + dir + `/tls ` +
		`\( -name "*.key" -o -name "*.kubeconfig" -o -name "*.yaml" -o -name token -o -name audit.log -o -name passwd -o -name "*.json" ` +
		`-o -path /var/log/k3s -o -path ` + dir + `/db/etcd \) -type f,d -perm /077 ; ` +
		`find ` + dir + `/tls -user root -group root -name "*.key" | wc -l'`
	lines := strings.Fields(l.onMachine(server, "sh", "-c", find))
	count, err := strconv.Atoi(lines[len(lines)-1])
	if err != nil || count < 10 {
		t.Errorf("%s: %s keys found, want at least 10", server, lines[len(lines)-1])
	}
	if open := lines[:len(lines)-1]; len(open) != 0 {
		t.Errorf("%s: readable by more than root: %q", server, open)
	}
}

// hardeningChanges changes settings of a cluster that runs: K3s restarts on one
// server after the other.
func hardeningChanges(t *testing.T, l *lab) {
	file := filepath.Join(l.dir, "ansible/group_vars/all.yaml")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(more string) {
		if err := os.WriteFile(file, append(slices.Clone(before), more...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat("/sys/module/wireguard"); os.IsNotExist(err) {
		plain := strings.Replace(string(before), "\n  cni: flannel\n", "\n  cni: flannel\n  flannel_backend: wireguard-native\n", 1)
		if err := os.WriteFile(file, []byte(plain), 0o644); err != nil {
			t.Fatal(err)
		}
		out := l.exit(3, "plan")
		for _, m := range nodes {
			if refusal := m + ": its kernel "; !strings.Contains(out, refusal) || !strings.Contains(out, "has no module wireguard") {
				t.Errorf("wireguard-native is not refused for %s:\n%s", m, out)
			}
		}
	}
	address := strings.Fields(l.onMachine("server-2", "hostname", "-I"))[0]
	if code := l.asks("server-2", "http://"+address+":2381/metrics"); code != "200" {
		t.Errorf("etcd's metrics: %s", code)
	}
	// Metrics are said to be served, as by default, so that no later phase that
	// turns the firewall off restarts K3s for it.
	write("\nsecurity:\n  expose_metrics: true\n  audit: {max_size_mib: 1, max_backups: 1}\n")
	l.exit(0, "up", "--yes")
	whole(t, l)
	oneAfterTheOther(t, l)
	rotated(t, l)
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan after the change: %v", describe(changes))
	}
}

// oneAfterTheOther compares when K3s was down on each server. The machines share
// one kernel, and so one clock.
func oneAfterTheOther(t *testing.T, l *lab) {
	t.Helper()
	type span struct {
		server   string
		down, up int
	}
	var spans []span
	for _, s := range servers {
		times := map[string]int{}
		out := l.onMachine(s, "systemctl", "show", "k3s", "-p", "ActiveExitTimestampMonotonic", "-p", "ActiveEnterTimestampMonotonic")
		for _, line := range strings.Fields(out) {
			key, value, _ := strings.Cut(line, "=")
			times[key], _ = strconv.Atoi(value) // 0 is refused below
		}
		down, up := times["ActiveExitTimestampMonotonic"], times["ActiveEnterTimestampMonotonic"]
		if down == 0 || up < down {
			t.Fatalf("%s: K3s was not restarted: %q", s, out)
		}
		spans = append(spans, span{s, down, up})
	}
	slices.SortFunc(spans, func(a, b span) int { return a.down - b.down })
	for i := range spans[1:] {
		if spans[i+1].down < spans[i].up {
			t.Errorf("%s went down before %s was up again: %v", spans[i+1].server, spans[i].server, spans)
		}
	}
}

// rotated has more logged than one file may hold.
func rotated(t *testing.T, l *lab) {
	t.Helper()
	long := strings.Repeat("x", 60<<10)
	server := holder(t, l, vipOf(t, l))
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(l.dir, ".k3lab/kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	for range 60 {
		get := api.Discovery().RESTClient().Get().AbsPath("/api/v1/namespaces/default/configmaps")
		if _, err := get.Param("limit", "1").Param("of-no-meaning", long).DoRaw(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 20*time.Second, "the audit log is rotated and one file kept", func() bool {
		out := strings.Fields(l.onMachine(server, "find", "/var/log/k3s", "-type", "f", "-size", "-1025k", "-perm", "0600"))
		return len(out) == 2
	})
}
