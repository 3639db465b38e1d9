package op

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/k3lab/k3lab/internal/cluster"
	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/existing"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/pve"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/secrets"
	"github.com/k3lab/k3lab/internal/workspace"
)

// foreign is a node of a cluster k3lab has not made, with the last byte of its address.
func foreign(name string, role config.Role, last byte, settings existing.Settings) *found {
	ip := netip.AddrFrom4([4]byte{192, 0, 2, last})
	m := &existing.Machine{
		Hostname: name, Arch: "amd64", Role: role, Settings: settings, Version: "v1.36.3+k3s1", SHA256: "aa", Timezone: "Europe/Berlin",
		Addresses: []existing.Address{{Interface: "eth0", MAC: "BC:24:11:00:00:01", Prefix: netip.PrefixFrom(ip, 24)}},
		Gateway:   netip.MustParseAddr("192.0.2.1"), DNSServers: []netip.Addr{netip.MustParseAddr("192.0.2.53")},
	}
	if role == config.RoleServer {
		m.Datastore, m.Encrypted, m.Token = existing.Etcd, true, "K10::server:secret"
	}
	return &found{cluster.Known{Name: name, Address: ip, Server: role == config.RoleServer, Ready: true}, m}
}

func foreignCluster() *importing {
	server := func(name string, last byte, joined string) *found {
		s := existing.Settings{"disable": []string{"traefik"}, "tls-san": []string{"192.0.2.10", "k3s.example"}, "write-kubeconfig-mode": "0600"}
		if joined != "" {
			s["server"] = joined
		}
		return foreign(name, config.RoleServer, last, s)
	}
	return &importing{
		opts: ImportOptions{LabName: "old", Reporter: report.NewHub()}, user: "ops", keyFile: "/keys/id",
		nodes: []*found{
			server("a", 11, ""), server("b", 12, "https://192.0.2.11:6443"), server("c", 13, "https://192.0.2.11:6443"),
			foreign("w", config.RoleAgent, 21, existing.Settings{"server": "https://192.0.2.10:6443", "node-label": []string{"disk=ssd"}}),
		},
	}
}

func TestImportedSettings(t *testing.T) {
	plain := func() workspace.Imported {
		machine := func(name, role, ip string) workspace.ImportedMachine {
			return workspace.ImportedMachine{Name: name, Role: role, Hypervisor: config.HypervisorNone, IP: ip, Arch: "amd64"}
		}
		w := workspace.Imported{
			LabName: "old", User: "ops", KeyFile: "/keys/id", Version: "v1.36.3+k3s1", CNI: "flannel", FlannelBackend: "vxlan",
			PodCIDR: "10.42.0.0/16", ServiceCIDR: "10.43.0.0/16", ClusterDomain: "cluster.local", Disable: []string{"traefik"},
			ServerConfig: map[string]any{"write-kubeconfig-mode": "0600"}, AgentConfig: map[string]any{}, SecretsEncryption: true,
			Timezone: "Europe/Berlin", CIDR: "192.0.2.0/24", Gateway: "192.0.2.1", DNSServers: []string{"192.0.2.53"},
			TLSSANs: []string{"192.0.2.10", "k3s.example"},
			Machines: []workspace.ImportedMachine{
				machine("a", "server", "192.0.2.11"), machine("b", "server", "192.0.2.12"), machine("c", "server", "192.0.2.13"),
				machine("w", "agent", "192.0.2.21"),
			},
		}
		w.Machines[3].Labels = map[string]string{"disk": "ssd"}
		return w
	}
	tests := map[string]struct {
		given   func(*importing)
		want    func(*workspace.Imported)
		notices []string
	}{
		"three servers that agree": {func(*importing) {}, func(*workspace.Imported) {}, nil},
		"a setting that each server has otherwise is told once": {
			func(i *importing) {
				i.nodes[0].Settings["kube-apiserver-arg"] = "v=1"
				i.nodes[1].Settings["kube-apiserver-arg"] = "v=2"
			},
			func(*workspace.Imported) {},
			[]string{"kube-apiserver-arg is not the same on all servers (a: v=1, b: v=2, c: <nil>). k3lab has one setting for all of them, so it was left out."},
		},
		"a setting all servers share": {
			func(i *importing) {
				for _, n := range i.nodes[:3] {
					n.Settings["etcd-arg"] = []string{"election-timeout=5000"}
				}
			},
			func(w *workspace.Imported) { w.ServerConfig["etcd-arg"] = []string{"election-timeout=5000"} }, nil,
		},
		"a secret is not taken over": {
			func(i *importing) { i.nodes[1].Settings["etcd-s3-secret-key"] = "" },
			func(*workspace.Imported) {},
			[]string{"b: etcd-s3-secret-key is secret and was not taken over. Before k3s is managed, put it where K3s finds it otherwise."},
		},
		"versions that differ": {
			func(i *importing) { i.nodes[3].Version = "v1.37.1+k3s2" },
			func(w *workspace.Imported) { w.Version = "v1.37.1+k3s2" },
			[]string{"K3s runs in several versions: v1.36.3+k3s1 on a, b, c; v1.37.1+k3s2 on w. The settings say v1.37.1+k3s2: once k3s is managed, all are brought to that."},
		},
		"an address keepalived holds": {
			func(i *importing) {
				i.nodes[1].Keepalived = true
				i.nodes[1].Addresses = append(i.nodes[1].Addresses, existing.Address{Interface: "eth0", Prefix: netip.MustParsePrefix("192.0.2.10/32")})
			},
			func(w *workspace.Imported) { w.VIP, w.TLSSANs = "192.0.2.10", []string{"k3s.example"} },
			[]string{"192.0.2.10 is held by keepalived as the address of the API. It stays so until ha is managed."},
		},
		"another name in the cluster": {
			func(i *importing) { i.nodes[3].Hostname = "worker" },
			func(*workspace.Imported) {},
			[]string{"w: its host name is worker. Once os is managed it is called like its node."},
		},
		"a proxy": {
			func(i *importing) { i.nodes[3].Variables = []string{"HTTPS_PROXY", "NO_PROXY"} },
			func(*workspace.Imported) {},
			[]string{"w: K3s gets HTTPS_PROXY, NO_PROXY from its unit's environment. Before k3s is managed, move that to a drop-in: systemctl edit k3s-agent"},
		},
		"a VM": {
			func(i *importing) {
				vm := pve.Hardware{VM: pve.VM{ID: 107, Node: "pve1"}, Cores: 2, MemoryMiB: 4096, OnBoot: true}
				i.infra = &carried{endpoint: &workspace.ImportedEndpoint{Name: "home"}, bridge: "vmbr0", vms: map[string]pve.Hardware{"w": vm}}
			},
			func(w *workspace.Imported) {
				w.Endpoint, w.Bridge = &workspace.ImportedEndpoint{Name: "home"}, "vmbr0"
				m := &w.Machines[3]
				m.Hypervisor, m.VMID, m.Cores, m.MemoryMiB, m.OnBoot = "pve1", 107, 2, 4096, true
			}, nil,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			i := foreignCluster()
			tt.given(i)
			got, err := i.settings()
			if err != nil {
				t.Fatal(err)
			}
			want := plain()
			tt.want(&want)
			if d := cmp.Diff(want, got, cmpopts.IgnoreTypes(secrets.Value{}), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("settings (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.notices, i.notices); d != "" {
				t.Errorf("notices (-want +got):\n%s", d)
			}
			if got.Token.Reveal() != "K10::server:secret" {
				t.Error("the token is not that of the servers")
			}
		})
	}
}

func TestClustersThatAreRefused(t *testing.T) {
	tests := map[string]struct {
		change func(*importing)
		want   string
	}{
		"an address its interfaces do not have": {
			func(i *importing) { i.nodes[0].Addresses = nil },
			"a: none of its network interfaces has the address 192.0.2.11 of its node (try: kubectl get node a -o wide)",
		},
		"two networks for pods": {
			func(i *importing) { i.nodes[0].Settings["cluster-cidr"] = "10.42.0.0/16,fd00::/56" },
			"a: its pods or Services have 10.42.0.0/16,fd00::/56: k3lab knows clusters with one IPv4 network for each",
		},
		"a backend k3lab does not know": {
			func(i *importing) { i.nodes[0].Settings["flannel-backend"] = "ipsec" },
			"a: its flannel-backend is ipsec: k3lab knows vxlan, wireguard-native, host-gw and none",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			i := foreignCluster()
			tt.change(i)
			_, err := i.settings()
			refused(t, err, tt.want)
		})
	}
}

func TestNodesThatAreRefused(t *testing.T) {
	tests := map[string]struct {
		change func(*found)
		want   string
	}{
		"SQLite": {
			func(f *found) { f.Datastore = existing.SQLite },
			"a: its cluster is kept in SQLite, and k3lab looks after clusters on embedded etcd only (try: K3s moves it by itself: " +
				"add --cluster-init to ExecStart in its k3s.service, then systemctl daemon-reload && systemctl restart k3s)",
		},
		"a database elsewhere": {
			func(f *found) { f.Datastore = existing.External },
			"a: its cluster is kept in an external database, and k3lab looks after clusters on embedded etcd only",
		},
		"a server in parts": {
			func(f *found) { f.Settings["disable-agent"] = true },
			"a: it runs with disable-agent: k3lab knows servers that are whole",
		},
		"a node that says otherwise": {
			func(f *found) { f.Server = false },
			"a: it runs K3s as server, and its node says otherwise (try: kubectl get node a --show-labels)",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			i := foreignCluster()
			n := i.nodes[0]
			tt.change(n)
			refused(t, i.node(n.Known, n.Machine), tt.want)
		})
	}
}

func TestImportIsRefusedBeforeAnythingIsRead(t *testing.T) {
	keys := t.TempDir()
	key := filepath.Join(keys, "id")
	if err := os.WriteFile(key, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		opts ImportOptions
		want string
	}{
		"another port": {
			ImportOptions{Server: "root@192.0.2.11:2222", KeyFile: key},
			"root@192.0.2.11:2222: k3lab reaches machines on port 22 only (try: have sshd listen on 22 too)",
		},
		"no address": {ImportOptions{Server: "root@", KeyFile: key}, "root@: it is not [USER@]ADDRESS (try: --server root@192.168.10.11)"},
		"the public half": {
			ImportOptions{Server: "root@192.0.2.11", KeyFile: key + ".pub"},
			key + ".pub: this is the public half (try: --ssh-key " + key + ")",
		},
	}
	if err := os.WriteFile(key+".pub", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.opts.Dir = filepath.Join(t.TempDir(), "lab")
			_, err := Import(t.Context(), tt.opts)
			refused(t, err, tt.want)
			if _, err := os.Stat(tt.opts.Dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a workspace was begun: %v", err)
			}
		})
	}
}

// TestImportLeavesNothingHalfWritten where it is interrupted.
func TestImportLeavesNothingHalfWritten(t *testing.T) {
	key := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(key, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // Ctrl-C
	_, err := Import(ctx, ImportOptions{Dir: filepath.Join(parent, "lab"), Server: "root@127.0.0.1", KeyFile: key, Reporter: report.NewHub()})
	if err == nil {
		t.Error("no error")
	}
	left, err := os.ReadDir(parent)
	if err != nil || len(left) != 0 {
		t.Errorf("left beside its place: %v, %v", left, err)
	}
}

func refused(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want || fault.KindOf(err) != fault.Invalid {
		t.Errorf("kind %d, error %v\nwant %s", fault.KindOf(err), err, want)
	}
}
