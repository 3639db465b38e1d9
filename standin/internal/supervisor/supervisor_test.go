package supervisor_test

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/k3lab/k3lab/standin/internal/datadir"
	"github.com/k3lab/k3lab/standin/internal/join"
	"github.com/k3lab/k3lab/standin/internal/pki"
	"github.com/k3lab/k3lab/standin/internal/protocol"
	"github.com/k3lab/k3lab/standin/internal/supervisor"
	"github.com/k3lab/k3lab/standin/internal/token"
)

// cluster is a supervisor in front of an API that answers 418, so that it shows
// which requests get through to it.
type cluster struct {
	url string
	dir datadir.Dir
	ca  []byte
}

func newCluster(t *testing.T) cluster {
	t.Helper()
	dir := datadir.Dir(t.TempDir())
	if err := dir.MakeServer(); err != nil {
		t.Fatal(err)
	}
	names := pki.ServerNames{API: []string{"127.0.0.1"}, Etcd: []string{"127.0.0.1"}, APIURL: "https://127.0.0.1:6443"}
	if err := pki.EnsureServer(dir, names); err != nil {
		t.Fatal(err)
	}
	if err := supervisor.WriteUsers(dir.Cred("passwd"), "server-secret", "agent-secret"); err != nil {
		t.Fatal(err)
	}
	kube := fake.NewClientset()
	s := supervisor.New(supervisor.Config{Dir: dir, Agent: protocol.AgentConfig{ClusterCIDR: "10.42.0.0/16"}},
		supervisor.Deps{Kube: func() (kubernetes.Interface, error) { return kube, nil }})
	api := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	server := httptest.NewUnstartedServer(s.Wrap(api))
	cert, err := tls.LoadX509KeyPair(dir.TLS("serving-kube-apiserver.crt"), dir.TLS("serving-kube-apiserver.key"))
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	ca, err := os.ReadFile(dir.TLS("server-ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	return cluster{url: server.URL, dir: dir, ca: ca}
}

func TestServerJoins(t *testing.T) {
	c := newCluster(t)
	client, err := join.Dial(t.Context(), c.url, token.Format(c.ca, token.UserServer, "server-secret"), token.UserServer)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := client.Bootstrap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second := datadir.Dir(t.TempDir())
	if err := bundle.Write(second); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"client-ca.key", "etcd/peer-ca.crt", "service.key"} {
		one, err1 := os.ReadFile(c.dir.TLS(file))
		two, err2 := os.ReadFile(second.TLS(file))
		if err1 != nil || err2 != nil || string(one) != string(two) {
			t.Errorf("%s did not arrive: %v, %v", file, err1, err2)
		}
	}
}

func TestTokens(t *testing.T) {
	c := newCluster(t)
	bootstrap := func(ctx context.Context, cl *join.Client) error { _, err := cl.Bootstrap(ctx); return err }
	config := func(ctx context.Context, cl *join.Client) error { _, err := cl.AgentConfig(ctx); return err }
	for _, tt := range []struct {
		name, token, user string
		ask               func(context.Context, *join.Client) error
		want              string
	}{
		{"agent asks as agent", "agent-secret", token.UserAgent, config, ""},
		{"server asks as agent", "server-secret", token.UserServer, config, ""},
		{"agent asks as server", "agent-secret", token.UserAgent, bootstrap, "403 Forbidden"},
		{"wrong password", "wrong", token.UserServer, bootstrap, "401 Unauthorized"},
		{"unknown user", "nobody:agent-secret", token.UserAgent, config, "401 Unauthorized"},
		{"unknown bootstrap token", "abcdef.0123456789abcdef", token.UserAgent, config, "401 Unauthorized"},
		{"another cluster's", token.Format([]byte("other"), token.UserServer, "server-secret"), token.UserServer, config, "CA hash does not match"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, err := join.Dial(t.Context(), c.url, tt.token, tt.user)
			if err == nil {
				err = tt.ask(t.Context(), client)
			}
			if (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestNodeCertificates(t *testing.T) {
	c := newCluster(t)
	client, err := join.Dial(t.Context(), c.url, "agent-secret", token.UserAgent)
	if err != nil {
		t.Fatal(err)
	}
	request, err := pki.NewRequest(t.TempDir() + "/key")
	if err != nil {
		t.Fatal(err)
	}
	node := join.Identity{Name: "a1", Password: "mine", IP: "198.18.0.5"}
	data, err := client.Certificate(t.Context(), join.KubeletClient, node, request)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := pki.ParseCerts(data)
	if err != nil || certs[0].Subject.CommonName != "system:node:a1" || certs[0].Subject.Organization[0] != "system:nodes" {
		t.Errorf("got %v, %v", certs[0].Subject, err)
	}
	if _, err := client.Certificate(t.Context(), join.KubeletServing, node, request); err != nil {
		t.Errorf("asking again with the same password: %v", err)
	}
	node.Password = "another machine's"
	if _, err := client.Certificate(t.Context(), join.KubeletServing, node, request); !join.Rejected(err) {
		t.Errorf("another password: got %v, want a refusal", err)
	}
}

func TestPaths(t *testing.T) {
	c := newCluster(t)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for path, want := range map[string]int{
		// Without credentials; a wrong token is 401.
		"/ping": 200, "/cacerts": 200, "/v1-k3s/config": 403, "/v1-k3s/whatever": 403, "/db/info": 403,
		"/version": http.StatusTeapot, "/readyz": http.StatusTeapot, "/api/v1/pods": http.StatusTeapot,
	} {
		response, err := client.Get(c.url + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: got %d, want %d", path, response.StatusCode, want)
		}
	}
}
