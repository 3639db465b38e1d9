package desired_test

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/desired"
)

// firewallCases are the kinds of firewall there are.
func firewallCases() map[string]struct {
	machine string
	change  func(*config.Lab)
} {
	prefixes := func(list ...string) []netip.Prefix {
		var out []netip.Prefix
		for _, p := range list {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	return map[string]struct {
		machine string
		change  func(*config.Lab)
	}{
		"server": {"server-1", func(*config.Lab) {}},
		"agent":  {"agent-1", func(*config.Lab) {}},
		"settings": {"agent-1", func(l *config.Lab) {
			l.Network.AdminNetworks = prefixes("192.0.2.0/25", "192.0.2.7/32", "2001:db8::/64", "192.0.2.0/25")
			l.Network.LoadBalancerPool = []config.Range{{From: netip.MustParseAddr("192.0.2.200"), To: netip.MustParseAddr("192.0.2.220")}}
			l.Firewall.NodePortsFrom = prefixes("192.0.2.0/24")
			l.Firewall.Allow = []config.FirewallRule{
				{Name: "web", Protocol: "tcp", Ports: []config.PortRange{{From: 443, To: 443}, {From: 80, To: 80}, {From: 81, To: 90}},
					From: prefixes("0.0.0.0/0", "::/0"), Roles: []config.Role{config.RoleAgent}},
				{Name: "syslog", Protocol: "udp", Ports: []config.PortRange{{From: 514, To: 514}}, From: prefixes("192.0.2.0/24"),
					Roles: []config.Role{config.RoleServer, config.RoleAgent}},
				{Name: "servers only", Protocol: "tcp", Ports: []config.PortRange{{From: 1, To: 1}}, From: prefixes("192.0.2.0/24"),
					Roles: []config.Role{config.RoleServer}},
			}
			l.K3s.ServerConfig = map[string]any{"flannel-backend": "wireguard-native", "service-node-port-range": "30000-31000", "embedded-registry": true}
			l.K3s.Disable = []string{"traefik"}
		}},
		"another-network-plugin": {"server-1", func(l *config.Lab) {
			l.K3s.CNI, l.Network.VIP = "none", netip.Addr{}
		}},
		"off": {"server-1", func(l *config.Lab) { l.Firewall.Enabled = false }},
	}
}

func firewallOf(t *testing.T, l *config.Lab, machine string) []converger.Resource {
	t.Helper()
	state, err := desired.Node(l, l.Machine(machine), inputs())
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(state.Resources, func(r converger.Resource) bool { return !slices.Contains(r.Tags, desired.TagFirewall) })
}

func TestFirewallGolden(t *testing.T) {
	for name, tt := range firewallCases() {
		t.Run(name, func(t *testing.T) {
			l := lab()
			tt.change(l)
			golden(t, "firewall-"+name, render(t, converger.State{Resources: firewallOf(t, l, tt.machine)}))
		})
	}
}

// TestFirewallIsLoaded: nft takes the rules, and takes its own listing of them:
// that is what is put back when a change is not confirmed.
func TestFirewallIsLoaded(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil || os.Getuid() != 0 {
		t.Skip("needs nft and root")
	}
	for name, tt := range firewallCases() {
		t.Run(name, func(t *testing.T) {
			l := lab()
			tt.change(l)
			for _, r := range firewallOf(t, l, tt.machine) {
				if r.Nftables == nil || r.Nftables.Ruleset == "" {
					continue
				}
				path := filepath.Join(t.TempDir(), "rules")
				if err := os.WriteFile(path, []byte(r.Nftables.Ruleset), 0o600); err != nil {
					t.Fatal(err)
				}
				const script = `nft -f "$1"; nft -s list table inet k3lab >"$1.1"; nft delete table inet k3lab
nft -f "$1.1"; nft -s list table inet k3lab >"$1.2"; cmp "$1.1" "$1.2"; nft -f "$1"; nft -s list ruleset >"$1.2"; cmp "$1.1" "$1.2"`
				out, err := exec.Command("unshare", "--net", "sh", "-euc", script, "sh", path).CombinedOutput()
				if err != nil {
					t.Errorf("%v: %s", err, out)
				}
			}
		})
	}
}

// TestPodsAreNoAdmins: the networks that may log in where none are named hold
// that of the pods, which are judged before.
func TestPodsAreNoAdmins(t *testing.T) {
	l := lab()
	for _, m := range l.Nodes() {
		for _, r := range firewallOf(t, l, m.Name) {
			if r.Nftables == nil {
				continue
			}
			pods, admins := strings.Index(r.Nftables.Ruleset, "ip saddr @pods goto"), strings.Index(r.Nftables.Ruleset, "ip saddr @admins")
			if pods < 0 || admins < pods {
				t.Errorf("%s: pods are judged at %d, admins at %d", m.Name, pods, admins)
			}
		}
	}
}
