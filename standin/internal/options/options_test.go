package options

import (
	"strings"
	"testing"

	"github.com/k3lab/k3lab/standin/internal/confargs"
)

func parse(t *testing.T, args ...string) (*Server, error) {
	t.Helper()
	t.Setenv(confargs.EnvFile, "/dev/null")
	return ParseServer(append([]string{"--node-ip=198.18.0.1", "--node-name=S1"}, args...))
}

func TestServerDefaults(t *testing.T) {
	s, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ got, want string }{
		"name": {s.Name, "s1"}, "pods": {s.ClusterCIDR, "10.42.0.0/16"}, "services": {s.ServiceCIDR, "10.43.0.0/16"},
		"dns": {s.ClusterDNS, "10.43.0.10"}, "advertised": {s.AdvertiseAddress, "198.18.0.1"},
		"kubeconfig": {s.Kubeconfig, "/etc/rancher/k3s/k3s.yaml"}, "mode": {s.KubeconfigMode.String(), "-rw-------"},
		"snapshots": {s.Snapshots.Dir, "/var/lib/rancher/k3s/server/db/snapshots"}, "flannel": {s.FlannelBackend, "vxlan"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %q, want %q", name, c.got, c.want)
		}
	}
	if service, err := s.APIServiceIP(); err != nil || service != "10.43.0.1" {
		t.Errorf("API service: got %s, %v", service, err)
	}
}

func TestPrecedence(t *testing.T) {
	t.Setenv("K3S_TOKEN", "from-environment")
	s, err := parse(t)
	if err != nil || s.Token != "from-environment" {
		t.Errorf("environment: got %v, %v", s, err)
	}
	s, err = parse(t, "-token", "from-flag", "--write-kubeconfig-mode=644", "--tls-san=a,b", "--tls-san", "c")
	if err != nil {
		t.Fatal(err)
	}
	if s.Token != "from-flag" || s.KubeconfigMode != 0o644 || strings.Join(s.TLSSANs, " ") != "a b c" {
		t.Errorf("flags: got %q %v %q", s.Token, s.KubeconfigMode, s.TLSSANs)
	}
}

func TestRefused(t *testing.T) {
	for want, args := range map[string][]string{
		"flag provided but not defined: -no-such-flag":                                                        {"--no-such-flag"},
		`server takes no arguments, got ["stray"]`:                                                            {"stray"},
		`invalid server url: "http://x": only https:// URLs are supported`:                                    {"--server=http://x"},
		`write-kubeconfig-mode: "rw" is not an octal file mode`:                                               {"--write-kubeconfig-mode=rw"},
		"invalid flag use; --cluster-reset required with --cluster-reset-restore-path":                        {"--cluster-reset-restore-path=x"},
		"datastore-endpoint: the k3lab stand-in has embedded etcd only":                                       {"--datastore-endpoint=mysql://x"},
		`invalid boolean value "maybe" for -cluster-init: strconv.ParseBool: parsing "maybe": invalid syntax`: {"--cluster-init=maybe"},
	} {
		if _, err := parse(t, args...); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", args, err, want)
		}
	}
	if _, err := ParseAgent([]string{"--node-ip=198.18.0.1"}); err == nil || err.Error() != "--token is required" {
		t.Errorf("agent without a token: got %v", err)
	}
}
