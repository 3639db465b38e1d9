package cluster

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/kube"
)

// runningWith is a cluster whose node server-1 says that K3s runs with these arguments.
func runningWith(args string) *Security {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "server-1", Annotations: map[string]string{nodeArgs: args}}}
	return &Security{Client: &Client{&kube.Client{Core: fake.NewClientset(node)}}}
}

func TestArgument(t *testing.T) {
	for name, tt := range map[string]struct{ args, flag, want string }{
		"a flag":              {`["server","--protect-kernel-defaults","true"]`, "protect-kernel-defaults", "true"},
		"one that is not set": {`["server","--protect-kernel-defaults","true"]`, "token-file", ""},
		"of a component":      {`["server","--kube-apiserver-arg","a=b","--kube-apiserver-arg","audit-log-path=/x"]`, "kube-apiserver-arg=audit-log-path", "/x"},
		"the last one counts": {`["server","--kube-apiserver-arg","a=1","--kube-apiserver-arg","a=2"]`, "kube-apiserver-arg=a", "2"},
		"another component's": {`["server","--kubelet-arg","audit-log-path=/x"]`, "kube-apiserver-arg=audit-log-path", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := runningWith(tt.args).argument(t.Context(), "server-1", tt.flag)
			if got != tt.want || err != nil {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestHardeningChecks(t *testing.T) {
	m := &config.Machine{Name: "server-1"}
	said := func(output string) *Security {
		return &Security{Machines: &inspected{outputs: map[string]string{"server-1: k3s secrets-encrypt status": output}}}
	}
	type result struct {
		Verdict  Verdict
		Evidence string
	}
	for name, tt := range map[string]struct {
		s    *Security
		look func(*Security) (Verdict, string)
		want result
	}{
		"protected": {runningWith(`["server","--protect-kernel-defaults","true"]`), func(s *Security) (Verdict, string) { return kernelDefaults(t.Context(), s, m) },
			result{OK, "K3s runs with --protect-kernel-defaults"}},
		"not protected": {runningWith(`["server"]`), func(s *Security) (Verdict, string) { return kernelDefaults(t.Context(), s, m) },
			result{Bad, "K3s runs without --protect-kernel-defaults"}},
		"no API": {&Security{}, func(s *Security) (Verdict, string) { return kernelDefaults(t.Context(), s, m) }, result{Unknown, noAPI}},
		"encrypted": {said("Encryption Status: Enabled\nCurrent Rotation Stage: start\n"), func(s *Security) (Verdict, string) { return encrypted(t.Context(), s, m) },
			result{OK, "k3s secrets-encrypt status: Encryption Status: Enabled"}},
		"not encrypted": {said("Encryption Status: Disabled\n"), func(s *Security) (Verdict, string) { return encrypted(t.Context(), s, m) },
			result{Bad, "k3s secrets-encrypt status: Encryption Status: Disabled"}},
		"no audit log": {runningWith(`["server"]`), func(s *Security) (Verdict, string) { return audited(t.Context(), s, m) },
			result{Bad, "the API server runs without --audit-log-path"}},
	} {
		t.Run(name, func(t *testing.T) {
			verdict, evidence := tt.look(tt.s)
			if d := cmp.Diff(tt.want, result{verdict, evidence}); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// TestPodSecurity: what the API says to a privileged pod decides.
func TestPodSecurity(t *testing.T) {
	for name, tt := range map[string]struct {
		warning string
		code    int
		answer  string
		verdict Verdict
	}{
		"taken silently": {code: http.StatusCreated, answer: `{"kind":"Pod","apiVersion":"v1"}`, verdict: Bad},
		"warned of":      {`299 - "would violate PodSecurity \"restricted:latest\": privileged"`, http.StatusCreated, `{"kind":"Pod","apiVersion":"v1"}`, OK},
		"refused": {code: http.StatusForbidden, verdict: OK,
			answer: `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"violates PodSecurity \"restricted:latest\""}`},
		"another refusal": {code: http.StatusForbidden, verdict: Unknown,
			answer: `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"exceeded quota"}`},
	} {
		t.Run(name, func(t *testing.T) {
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if r.Method == http.MethodPost && r.URL.Query().Get("dryRun") != "All" {
					t.Errorf("%s is not a dry run", r.URL)
				}
				if tt.warning != "" {
					w.Header().Set("Warning", tt.warning)
				}
				w.WriteHeader(tt.code)
				_, _ = w.Write([]byte(tt.answer))
			}))
			defer api.Close()
			s := &Security{Client: &Client{&kube.Client{Core: fake.NewClientset(), Config: &rest.Config{Host: api.URL}, HTTP: api.Client()}}}
			if got, evidence := podSecurity(t.Context(), s, nil); got != tt.verdict {
				t.Errorf("got %v (%s), want %v", got, evidence, tt.verdict)
			}
		})
	}
}
