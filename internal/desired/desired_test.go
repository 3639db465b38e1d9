package desired_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/desired"
)

var update = flag.Bool("update", false, "write the golden files")

func lab() *config.Lab {
	machine := func(name string, role config.Role, ip string) *config.Machine {
		return &config.Machine{Name: name, Role: role, Enabled: true, IP: netip.MustParseAddr(ip), Arch: "amd64"}
	}
	l := &config.Lab{
		Name: "home",
		Machines: []*config.Machine{
			machine("server-1", config.RoleServer, "192.0.2.11"),
			machine("server-2", config.RoleServer, "192.0.2.12"),
			machine("server-3", config.RoleServer, "192.0.2.13"),
			machine("agent-1", config.RoleAgent, "192.0.2.21"),
			machine("nas", config.RoleNone, "192.0.2.31"),
		},
		Network: config.Network{
			CIDR: netip.MustParsePrefix("192.0.2.0/24"), VIP: netip.MustParseAddr("192.0.2.10"),
			VIPName: "k3s.lab.internal", VRRPID: 51, TLSSANs: []string{"k3s.example.org"},
		},
		Firewall: config.Firewall{Enabled: true},
		K3s: config.K3s{
			Version: "v1.36.3+k3s1", CNI: "flannel", ClusterDomain: "cluster.local",
			PodCIDR: netip.MustParsePrefix("10.42.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"),
			FlannelBackend: "vxlan", Disable: []string{"traefik", "servicelb"},
		},
		Security: config.Security{
			Profile:     config.ProfileCIS,
			PodSecurity: config.PodSecurity{Enforce: "privileged", Warn: "restricted", Audit: "restricted"},
			Audit:       config.Audit{MaxAgeDays: 30, MaxBackups: 10, MaxSizeMiB: 100},
		},
		Access: config.Access{User: "k3lab", HardenSSHD: true},
		OS:     config.OS{Timezone: "Europe/Zurich", UnattendedUpgrades: true, JournaldMaxMiB: 500},
	}
	l.Machines[0].Hypervisor, l.Machines[2].Hypervisor, l.Machines[3].Hypervisor = "pve1", "pve2", config.HypervisorNone
	l.Machines[2].Taints = []string{"quorum-only=true:NoSchedule"}
	l.Machines[3].Labels = map[string]string{"zone": "attic", "disk": "ssd"}
	return l
}

func inputs() desired.Inputs {
	return desired.Inputs{AuthorizedKeys: []string{"ssh-ed25519 AAAA me@desk", "ssh-ed25519 BBBB k3lab"}, Token: "s3cret", BinarySHA256: strings.Repeat("ab", 32), BinarySource: "/cache/k3s", Interface: "eth0"}
}

func TestNodeGolden(t *testing.T) {
	tests := map[string]struct {
		machine string
		change  func(*config.Lab, *desired.Inputs)
	}{
		"first-server": {"server-1", func(_ *config.Lab, in *desired.Inputs) { in.Bootstrap, in.EncryptSecrets = true, true }},
		"joining-server": {"server-3", func(_ *config.Lab, in *desired.Inputs) {
			in.JoinURL = "https://192.0.2.11:6443"
		}},
		"agent": {"agent-1", func(*config.Lab, *desired.Inputs) {}},
		"no-vip-no-cni": {"server-1", func(l *config.Lab, in *desired.Inputs) {
			l.Machines = l.Machines[:1]
			l.Network.VIP, l.Network.VIPName, l.K3s.CNI = netip.Addr{}, "", "none"
			l.K3s.FlannelBackend = ""
			l.K3s.ServerConfig = map[string]any{"etcd-expose-metrics": true}
			in.Bootstrap = true
		}},
		"other-os": {"agent-1", func(l *config.Lab, _ *desired.Inputs) {
			l.OS = config.OS{Timezone: "Etc/UTC", Packages: []string{"chrony", "nfs-common"}, JournaldMaxMiB: 64, Banner: "Authorized use only\n"}
			l.Access.HardenSSHD = false
			l.Network.SearchDomain = "home.arpa"
			l.Machines[4].Enabled = false
		}},
		"registries-and-images": {"server-2", func(l *config.Lab, in *desired.Inputs) {
			l.K3s.Registries = config.Registries{
				Mirrors: []config.Mirror{
					{Host: "*"},
					{Host: "docker.io", Endpoints: []string{"https://mirror.home.arpa:5000"}, Rewrite: map[string]string{"^library/(.*)": "mirror/$1"}},
				},
				Configs: []config.RegistryConfig{
					{Host: "ghcr.io", InsecureSkipVerify: true},
					{Host: "mirror.home.arpa:5000", Username: "pull", PasswordSecret: "registry.home", CAFile: "certs/registry.pem"},
				},
			}
			in.Secrets = map[string]string{"registry.home": "s3cret: \"yes\""}
			in.Files = map[string]string{"certs/registry.pem": "-----BEGIN CERTIFICATE-----\n"}
			in.Images = []desired.Archive{
				{Name: "k3s-airgap-images-amd64.tar.zst", SHA256: strings.Repeat("cd", 32)},
				{Name: "images/app.tar", SHA256: strings.Repeat("ef", 32), Size: 7 << 20},
				{Name: "images/the-same.tar", SHA256: strings.Repeat("ef", 32), Size: 7 << 20},
			}
			in.JoinURL = "https://192.0.2.11:6443"
		}},
		"server-kube-vip": {"server-2", func(l *config.Lab, in *desired.Inputs) {
			l.Network.VIPProvider, l.Network.VIPImage = config.VIPKubeVIP, "registry.example/kube-vip:v9"
			in.JoinURL = "https://192.0.2.11:6443"
		}},
		"agent-kube-vip": {"agent-1", func(l *config.Lab, in *desired.Inputs) {
			l.Network.VIPProvider, in.JoinURL = config.VIPKubeVIP, "https://192.0.2.12:6443"
		}},
		"time-servers": {"agent-1", func(l *config.Lab, _ *desired.Inputs) {
			l.Network.NTPServers = []string{"192.0.2.1", "time.example.org"}
		}},
		"server-not-hardened": {"server-1", func(l *config.Lab, in *desired.Inputs) {
			l.Security, in.Bootstrap = config.Security{Profile: config.ProfileNone}, true
		}},
		"agent-not-hardened": {"agent-1", func(l *config.Lab, _ *desired.Inputs) {
			l.Security = config.Security{Profile: config.ProfileNone, ExposeMetrics: true}
		}},
		"server-wireguard": {"server-1", func(l *config.Lab, in *desired.Inputs) {
			l.K3s.FlannelBackend, in.Bootstrap = "wireguard-native", true
			l.Security.ExposeMetrics = true
			l.Security.PodSecurity = config.PodSecurity{Enforce: "baseline", Warn: "baseline", Audit: "restricted", Exempt: []string{"storage", "kube-system"}}
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l, in := lab(), inputs()
			tt.change(l, &in)
			state, err := desired.Node(l, l.Machine(tt.machine), in)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, render(t, state))
		})
	}
}

// render shows files as text and everything else as JSON, so that a golden file
// reads like what lands on the machine.
func render(t *testing.T, s converger.State) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, r := range s.Resources {
		content := ""
		if r.File != nil {
			f := *r.File
			content, f.Content = f.Content, ""
			if f.Secret {
				content = "(secret)\n"
			}
			r.File = &f
		}
		if r.Nftables != nil {
			n := *r.Nftables
			content, n.Ruleset = n.Ruleset, ""
			r.Nftables = &n
		}
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(append(line, '\n'))
		for l := range strings.Lines(content) {
			out.WriteString("    " + l)
		}
	}
	return out.Bytes()
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

// TestTokenStandsInItsOwnFileOnly: config.yaml is shown in plans.
func TestTokenStandsInItsOwnFileOnly(t *testing.T) {
	l := lab()
	for _, m := range l.Nodes() {
		state, err := desired.Node(l, m, inputs())
		if err != nil {
			t.Fatal(err)
		}
		holders := 0
		for _, r := range state.Resources {
			if r.File != nil && strings.Contains(r.File.Content, "s3cret") {
				holders++
				if !r.File.Secret || r.File.Mode != 0o600 {
					t.Errorf("%s: %s holds the token and is no secret file", m.Name, r.File.Path)
				}
			}
		}
		if holders != 1 {
			t.Errorf("%s: %d files hold the token, want 1", m.Name, holders)
		}
	}
}

func TestAPIURL(t *testing.T) {
	l := lab()
	if got, want := desired.APIURL(l), "https://192.0.2.10:6443"; got != want {
		t.Errorf("with a VIP: %s, want %s", got, want)
	}
	l.Network.VIP = netip.Addr{}
	if got, want := desired.APIURL(l), "https://192.0.2.11:6443"; got != want {
		t.Errorf("without a VIP: %s, want %s", got, want)
	}
}
