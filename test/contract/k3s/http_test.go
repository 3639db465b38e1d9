package k3s

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// httpClient speaks HTTPS from a machine, and trusts whatever answers.
func httpClient(m *machine) *http.Client {
	return &http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{
			DialContext:       m.dial,
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		},
	}
}

// get returns the code and the body of one answer; user and password may be
// empty.
func get(t *testing.T, m *machine, url, user, password string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		request.SetBasicAuth(user, password)
	}
	response, err := httpClient(m).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func httpAnswers(t *testing.T, c *cluster) {
	m := c.first
	base := "https://" + m.ip + ":6443"
	refusal := func(code int32, reason metav1.StatusReason, message string) *metav1.Status {
		return &metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status"},
			Status:   "Failure", Code: code, Reason: reason, Message: message,
		}
	}
	tests := []struct {
		name, path, user, password string
		code                       int
		body                       string         // exact, unless empty
		status                     *metav1.Status // of a refusal, without its version
	}{
		{name: "ping", path: "/ping", code: 200, body: "pong"},
		{name: "certificates", path: "/cacerts", code: 200, body: m.read(t, serverDir+"tls/server-ca.crt")},
		{name: "readyz needs credentials", path: "/readyz", code: 401, status: refusal(401, "Unauthorized", "Unauthorized")},
		{name: "livez needs credentials", path: "/livez", code: 401, status: refusal(401, "Unauthorized", "Unauthorized")},
		{name: "version needs credentials", path: "/version", code: 401, status: refusal(401, "Unauthorized", "Unauthorized")},
		{name: "supervisor without credentials", path: "/v1-k3s/config", code: 403, status: refusal(403, "Forbidden", "forbidden")},
		{
			name: "agent with a wrong token", path: "/v1-k3s/config", user: "node", password: "wrong",
			code: 401, status: refusal(401, "Unauthorized", "not authorized"),
		},
		{
			name: "server with a wrong token", path: "/v1-k3s/server-bootstrap", user: "server", password: "wrong",
			code: 401, status: refusal(401, "Unauthorized", "not authorized"),
		},
		{name: "agent with the token", path: "/v1-k3s/config", user: "node", password: token, code: 200},
		{
			name: "agent asks for what servers share", path: "/v1-k3s/server-bootstrap", user: "node", password: token,
			code: 403, status: refusal(403, "Forbidden", "forbidden"),
		},
		{name: "server asks for what servers share", path: "/v1-k3s/server-bootstrap", user: "server", password: token, code: 200},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code, body := get(t, m, base+test.path, test.user, test.password)
			if code != test.code {
				t.Errorf("code %d, want %d", code, test.code)
			}
			if test.body != "" && strings.TrimSpace(body) != strings.TrimSpace(test.body) {
				t.Errorf("body %q, want %q", body, test.body)
			}
			if test.status == nil {
				return
			}
			var got metav1.Status
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatalf("%v: %s", err, body)
			}
			got.APIVersion = ""
			if diff := cmp.Diff(test.status, &got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, path := range []string{"/readyz", "/livez"} {
		body, err := m.clients(t).Discovery().RESTClient().Get().AbsPath(path).DoRaw(t.Context())
		if err != nil || string(body) != "ok" {
			t.Errorf("%s as administrator: %q, %v", path, body, err)
		}
	}
}
