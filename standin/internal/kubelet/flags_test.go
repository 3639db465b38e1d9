package kubelet

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestParseFlags(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string // of the error; empty: none
	}{
		"none": {},
		"those of a hardened node": {args: []string{
			"streaming-connection-idle-timeout=5m", "make-iptables-util-chains=true", "pod-max-pids=4096", "--event-qps=50",
			"tls-min-version=VersionTLS12", "tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "read-only-port=0",
		}},
		"unknown":      {[]string{"no-such-flag=1"}, "failed to parse kubelet flag: unknown flag: --no-such-flag"},
		"wrong value":  {[]string{"pod-max-pids=many"}, "failed to parse kubelet flag: invalid argument \"many\" for \"--pod-max-pids\" flag"},
		"out of range": {[]string{"max-pods=-1"}, "failed to validate kubelet configuration, error: invalid configuration: maxPods"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseFlags(c.args)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestSecure(t *testing.T) {
	config, err := parseFlags([]string{"tls-min-version=VersionTLS13", "tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := secure(&tls.Config{ServerName: "kept"}, config)
	if err != nil {
		t.Fatal(err)
	}
	if got.MinVersion != tls.VersionTLS13 || got.ServerName != "kept" || !slices.Equal(got.CipherSuites, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}) {
		t.Errorf("got version %x, suites %x, name %q", got.MinVersion, got.CipherSuites, got.ServerName)
	}
}

// kernel has settings that nobody has touched, but those given.
type kernel map[string]int

func (k kernel) SetSysctl(key string, _ int) error { return fmt.Errorf("%s is not to be set", key) }

func (k kernel) GetSysctl(key string) (int, error) {
	if value, ok := k[key]; ok {
		return value, nil
	}
	return 0, fmt.Errorf("%s is not there", key)
}

func TestCheckKernel(t *testing.T) {
	good := kernel{
		"vm/overcommit_memory": 1, "vm/panic_on_oom": 0, "kernel/panic": 10, "kernel/panic_on_oops": 1,
		"kernel/keys/root_maxkeys": 1000000, "kernel/keys/root_maxbytes": 25000000,
	}
	if err := checkKernel(good); err != nil {
		t.Error(err)
	}
	good["vm/overcommit_memory"] = 0
	delete(good, "kernel/panic")
	want := "failed to start ContainerManager: [kernel/panic is not there, " +
		"invalid kernel flag: vm/overcommit_memory, expected value: 1, actual value: 0]"
	if err := checkKernel(good); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestProxyMetrics(t *testing.T) {
	for want, args := range map[string][]string{
		"127.0.0.1:10249":  nil,
		"198.18.0.1:10249": {"metrics-bind-address=198.18.0.1"},
		"0.0.0.0:9999":     {"--proxy-mode=iptables", "metrics-bind-address=0.0.0.0:9999"},
	} {
		if got, err := proxyMetrics(args); err != nil || got != want {
			t.Errorf("%q: got %s, %v; want %s", args, got, err, want)
		}
	}
	want := "failed to parse kube-proxy flag: unknown flag: --no-such-flag"
	if _, err := proxyMetrics([]string{"no-such-flag=1"}); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
