package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/kube"
)

// inspected is machines whose state a test sets. What is not set is not there.
type inspected struct {
	facts   map[string]converger.Facts
	outputs map[string]string // "machine: command" → what it writes
	ports   map[string]string // address → where a test server listens
	dialErr error             // instead of a refused connection
}

func (i *inspected) Facts(_ context.Context, machine string, _ converger.FactsRequest) (converger.Facts, error) {
	f, ok := i.facts[machine]
	if !ok {
		return f, errors.New("no route to host")
	}
	return f, nil
}

func (i *inspected) Output(_ context.Context, machine string, args ...string) ([]byte, error) {
	out, ok := i.outputs[machine+": "+strings.Join(args, " ")]
	if !ok {
		return nil, errors.New("command not found")
	}
	return []byte(out), nil
}

func (i *inspected) Dial(ctx context.Context, _, network, address string) (net.Conn, error) {
	to, ok := i.ports[address]
	if !ok {
		if i.dialErr != nil {
			return nil, i.dialErr
		}
		return nil, errors.New("connection refused")
	}
	return new(net.Dialer).DialContext(ctx, network, to)
}

var (
	server1 = &config.Machine{Name: "server-1", Role: config.RoleServer, Enabled: true, IP: netip.MustParseAddr("192.0.2.11")}
	agent1  = &config.Machine{Name: "agent-1", Role: config.RoleAgent, Enabled: true, IP: netip.MustParseAddr("192.0.2.21")}
)

func newSecurity(i *inspected) *Security {
	return &Security{Lab: &config.Lab{Machines: []*config.Machine{server1, agent1}}, Machines: i, Now: time.Now, facts: i.facts}
}

const sshdGood = "permitrootlogin no\npasswordauthentication no\nkbdinteractiveauthentication no\npermitemptypasswords no\nx11forwarding no\n"

func TestMachineChecks(t *testing.T) {
	good := converger.Facts{
		OS:      converger.OSRelease{ID: "debian", Version: "13"},
		Sysctls: map[string]string{"kernel.panic": "10", "kernel.panic_on_oops": "1", "vm.overcommit_memory": "1", "vm.panic_on_oom": "0"},
		Files:   map[string]converger.FileFact{"/etc/rancher/k3s/k3s.yaml": {Mode: 0o600}},
	}
	bad := converger.Facts{
		Sysctls: map[string]string{"kernel.panic": "10", "vm.overcommit_memory": "0", "vm.panic_on_oom": "0"},
		Files: map[string]converger.FileFact{
			"/etc/rancher/k3s/k3s.yaml": {Mode: 0o644}, "/var/lib/rancher/k3s/server/token": {Mode: 0o600, UID: 1000}, "/a": {Mode: 0o600},
		},
	}
	i := &inspected{facts: map[string]converger.Facts{"server-1": good, "agent-1": bad}, outputs: map[string]string{
		"server-1: sshd -T": sshdGood, "agent-1: sshd -T": strings.Replace(sshdGood, "permitrootlogin no", "permitrootlogin yes", 1),
	}}
	server2 := &config.Machine{Name: "server-2"}
	i.facts["server-2"] = converger.Facts{}
	i.outputs["server-1: nft list table inet k3lab"] = "table inet k3lab {\n\tchain input {\n\t\ttype filter hook input priority filter - 5; policy drop;\n\t}\n}\n"
	i.outputs["agent-1: nft list table inet k3lab"] = "table inet k3lab {\n\tchain input {\n\t\ttype filter hook input priority filter - 5; policy accept;\n\t}\n}\n"
	gone := &config.Machine{Name: "gone"}
	tests := map[string]struct {
		look     func(context.Context, *Security, *config.Machine) (Verdict, string)
		on       *config.Machine
		verdict  Verdict
		evidence string
	}{
		"a machine":              {answers, server1, OK, "answers, debian 13"},
		"no machine":             {answers, gone, Bad, "does not answer SSH: nothing about it is known"},
		"sysctls":                {sysctls, server1, OK, "kernel.panic=10, kernel.panic_on_oops=1, vm.overcommit_memory=1, vm.panic_on_oom=0"},
		"sysctls, wrong":         {sysctls, agent1, Bad, "kernel.panic_on_oops=not there, vm.overcommit_memory=0"},
		"sysctls of no machine":  {sysctls, gone, Unknown, "no answer"},
		"modes":                  {modes, server1, OK, "keys, tokens, kubeconfigs and the datastore are root's alone"},
		"modes, open":            {modes, agent1, Bad, "others may read /etc/rancher/k3s/k3s.yaml (0644), /var/lib/rancher/k3s/server/token (0600)"},
		"modes of no machine":    {modes, gone, Unknown, "no answer"},
		"sshd":                   {sshd, server1, OK, "sshd -T: kbdinteractiveauthentication no, passwordauthentication no, permitemptypasswords no, permitrootlogin no, x11forwarding no"},
		"sshd lets root in":      {sshd, agent1, Bad, "sshd -T: permitrootlogin yes"},
		"sshd of no machine":     {sshd, gone, Unknown, "command not found"},
		"closed":                 {readOnlyKubelet, server1, OK, "tried from the machine, not reached: 127.0.0.1:10255"},
		"closed, no machine":     {readOnlyKubelet, gone, Unknown, "no answer"},
		"firewall":               {firewall, server1, OK, "nftables table inet k3lab: type filter hook input priority filter - 5; policy drop;"},
		"firewall, open":         {firewall, agent1, Bad, "nftables table inet k3lab has no input chain with policy drop"},
		"no firewall":            {firewall, server2, Bad, "there is no nftables table inet k3lab"},
		"no connection possible": {oldTLS(apiPort), server1, Unknown, "connection refused"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			verdict, evidence := tt.look(t.Context(), newSecurity(i), tt.on)
			if verdict != tt.verdict || evidence != tt.evidence {
				t.Errorf("got %s: %s\nwant %s: %s", verdict, evidence, tt.verdict, tt.evidence)
			}
		})
	}
}

// TestConnections makes real connections to servers that protect themselves, and
// to servers that do not.
func TestConnections(t *testing.T) {
	serve := func(status int, change func(*tls.Config)) string {
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		srv.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		change(srv.TLS)
		srv.Config.ErrorLog = nil
		srv.StartTLS()
		t.Cleanup(srv.Close)
		return srv.Listener.Addr().String()
	}
	strict := serve(401, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert })
	closed := serve(401, func(*tls.Config) {})
	open := serve(200, func(c *tls.Config) {
		c.MinVersion = tls.VersionTLS10
		c.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	})
	looks := map[string]func(context.Context, *Security, *config.Machine) (Verdict, string){
		"anonymous": anonymous(apiPort, "/api"), "old TLS": oldTLS(apiPort), "etcd": datastoreAsks, "expiry": expiry(apiPort),
		"agents": closedToAgents,
	}
	tests := []struct {
		look, api, etcd string
		verdict         Verdict
		evidence        string
	}{
		{"anonymous", closed, "", OK, "GET :6443/api without credentials: 401 Unauthorized"},
		{"anonymous", open, "", Bad, "GET :6443/api without credentials: 200 OK"},
		{"old TLS", closed, "", OK, "port 6443: TLS 1.3 agreed on, TLS 1.1 refused"},
		{"old TLS", open, "", Bad, "port 6443 speaks TLS 1.1"},
		{"etcd", "", strict, OK, "etcd without a client certificate: remote error: tls: certificate required"},
		{"etcd", "", open, Bad, "etcd answers without a client certificate"},
		{"etcd", "", "", Unknown, "connection refused"},
		{"expiry", closed, "", OK, "the first to end is that of port 6443, 2084-01-29"},
		{"agents", "", "", OK, "tried from the machine, not reached: 192.0.2.11:2379, 192.0.2.11:2380"},
		{"agents", "", open, Bad, "reached etcd at 192.0.2.11:2379"},
	}
	for _, tt := range tests {
		t.Run(tt.look+" "+string(tt.verdict), func(t *testing.T) {
			i := &inspected{facts: map[string]converger.Facts{"server-1": {}, "agent-1": {}}, ports: map[string]string{}}
			if tt.api != "" {
				i.ports["192.0.2.11:6443"] = tt.api
			}
			if tt.etcd != "" {
				i.ports["192.0.2.11:2379"] = tt.etcd
			}
			verdict, evidence := looks[tt.look](t.Context(), newSecurity(i), server1)
			if verdict != tt.verdict || evidence != tt.evidence {
				t.Errorf("got %s: %s\nwant %s: %s", verdict, evidence, tt.verdict, tt.evidence)
			}
		})
	}
	s := newSecurity(&inspected{ports: map[string]string{"192.0.2.11:6443": closed}})
	s.Now = func() time.Time { return time.Date(2084, 1, 10, 0, 0, 0, 0, time.UTC) }
	if verdict, evidence := expiry(apiPort)(t.Context(), s, server1); verdict != Bad {
		t.Errorf("a certificate with 19 days left: %s: %s", verdict, evidence)
	}
	forbids := newSecurity(&inspected{facts: map[string]converger.Facts{"agent-1": {}}, dialErr: errors.New("ssh: rejected: administratively prohibited (open failed)")})
	if verdict, evidence := closedToAgents(t.Context(), forbids, agent1); verdict != Unknown {
		t.Errorf("where nothing could be tried: %s: %s", verdict, evidence)
	}
}

func TestPrivateFiles(t *testing.T) {
	dir := t.TempDir()
	s := &Security{Private: []string{filepath.Join(dir, "key"), filepath.Join(dir, "not-there")}}
	if err := os.WriteFile(s.Private[0], nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if verdict, evidence := private(t.Context(), s, nil); verdict != OK {
		t.Errorf("%s: %s", verdict, evidence)
	}
	if err := os.Chmod(s.Private[0], 0o640); err != nil {
		t.Fatal(err)
	}
	if verdict, evidence := private(t.Context(), s, nil); verdict != Bad || evidence != "others may read "+s.Private[0]+" (0640)" {
		t.Errorf("%s: %s", verdict, evidence)
	}
}

func TestBindings(t *testing.T) {
	bind := func(name, role string, subject rbacv1.Subject) *rbacv1.ClusterRoleBinding {
		return &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{Name: role}, Subjects: []rbacv1.Subject{subject}}
	}
	masters := bind("cluster-admin", "cluster-admin", rbacv1.Subject{Kind: "Group", Name: "system:masters"})
	discovery := bind("system:discovery", "system:discovery", rbacv1.Subject{Kind: "Group", Name: "system:authenticated"})
	s := &Security{Client: &Client{&kube.Client{Core: fake.NewClientset(masters, discovery)}}}
	verdict, evidence := rightsOfEverybody(t.Context(), s, nil)
	if verdict != OK || evidence != "2 bindings read, none gives more than discovery to everybody" {
		t.Errorf("%s: %s", verdict, evidence)
	}
	if verdict, evidence = unlimited(t.Context(), s, nil); verdict != OK || evidence != "everything may be done by system:masters" {
		t.Errorf("%s: %s", verdict, evidence)
	}
	s.Client.Core = fake.NewClientset(masters, discovery,
		bind("oops", "view", rbacv1.Subject{Kind: "User", Name: "system:anonymous"}),
		bind("helm", "cluster-admin", rbacv1.Subject{Kind: "ServiceAccount", Namespace: "media", Name: "default"}),
		&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "all", Namespace: "media"}, RoleRef: rbacv1.RoleRef{Name: "edit"},
			Subjects: []rbacv1.Subject{{Kind: "Group", Name: PeopleGroup}}},
	)
	want := "ClusterRoleBinding oops gives view to system:anonymous, RoleBinding media/all gives edit to k3lab:people"
	if verdict, evidence = rightsOfEverybody(t.Context(), s, nil); verdict != Bad || evidence != want {
		t.Errorf("%s: %s", verdict, evidence)
	}
	want = "everything may be done by every pod of namespace media, by ClusterRoleBinding helm"
	if verdict, evidence = unlimited(t.Context(), s, nil); verdict != Bad || evidence != want {
		t.Errorf("%s: %s", verdict, evidence)
	}
}

// TestLookLeavesNothingOut: every check has a finding for everything it concerns,
// also where nothing answers, and then none is good that was not looked at.
func TestLookLeavesNothingOut(t *testing.T) {
	s := newSecurity(&inspected{})
	for _, c := range s.Look(t.Context()) {
		if len(c.Findings) == 0 {
			t.Errorf("%s: no finding", c.Name)
		}
		for _, f := range c.Findings {
			if f.Object == "" || f.Verdict == "" || f.Evidence == "" {
				t.Errorf("%s: %+v", c.Name, f)
			}
			if f.Verdict == OK && f.Object != "cluster" {
				t.Errorf("%s: good on %s, which does not answer: %s", c.Name, f.Object, f.Evidence)
			}
		}
	}
	got := []Verdict{
		worst([]Finding{{Verdict: OK}, {Verdict: Unknown}, {Verdict: Bad}}), worst([]Finding{{Verdict: OK}, {Verdict: Unknown}}), worst([]Finding{{Verdict: OK}}),
	}
	if d := cmp.Diff([]Verdict{Bad, Unknown, OK}, got); d != "" {
		t.Errorf("worst (-want +got):\n%s", d)
	}
}
