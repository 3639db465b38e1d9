//go:build linux

package machine

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/sandbox/pveapi"
)

func TestCards(t *testing.T) {
	s := pveapi.Spec{
		VMID: 201, Name: "server-1",
		NICs:      []pveapi.NIC{{MAC: "BC:24:11:00:00:01"}, {MAC: "BC:24:11:00:00:02"}, {MAC: "BC:24:11:00:00:03"}},
		CloudInit: pveapi.CloudInit{Addresses: []string{"198.18.0.11/24", "dhcp"}},
	}
	want := "eth0 m201n0 BC:24:11:00:00:01 198.18.0.11/24\neth1 m201n1 BC:24:11:00:00:02 -\neth2 m201n2 BC:24:11:00:00:03 -\n"
	if d := cmp.Diff(want, cards(s)); d != "" {
		t.Error(d)
	}
}

func TestSeed(t *testing.T) {
	tests := map[string]struct {
		cloudInit pveapi.CloudInit
		want      map[string]string
	}{
		"all": {
			pveapi.CloudInit{User: "k3lab", SSHKeys: []string{"ssh-ed25519 AAAA a", "ssh-ed25519 BBBB b"}, DNSServers: []string{"192.0.2.1", "192.0.2.2"}, SearchDomain: "lab.internal"},
			map[string]string{
				"instance": "id", "hostname": "server-1\n", "user": "k3lab\n",
				"authorized_keys": "ssh-ed25519 AAAA a\nssh-ed25519 BBBB b\n",
				"resolv.conf":     "search lab.internal\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n",
			},
		},
		"nothing": {
			pveapi.CloudInit{},
			map[string]string{"instance": "id", "hostname": "server-1\n", "user": "debian\n", "authorized_keys": "", "resolv.conf": ""},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, seed(pveapi.Spec{CloudInit: tt.cloudInit}, "id", "server-1")); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestHostname(t *testing.T) {
	for name, want := range map[string]string{"server-1": "server-1", "server-1.lab.internal": "server-1", "": "machine"} {
		if got := hostname(name); got != want {
			t.Errorf("hostname(%q) = %q, want %q", name, got, want)
		}
	}
}
