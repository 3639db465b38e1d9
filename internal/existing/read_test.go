package existing

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/k3lab/k3lab/internal/config"
)

// server is what the script prints of a server that the install script made.
func server() answers {
	return answers{
		"hostname": "alpha\n", "arch": "x86_64\n", "active k3s": "active\n", "sha256": "abcd\n",
		"command k3s": `{"type":"a(sasbttttuii)","data":[["/usr/local/bin/k3s",["/usr/local/bin/k3s","server","--cluster-init","--disable","traefik"],false,0,0,0,0,0,0,0]]}`,
		"environ k3s": "PATH=/usr/bin\x00no_proxy=10.0.0.0/8\x00K3S_TOKEN=s3cret\x00CONTAINERD_HTTP_PROXY=http://192.0.2.3\x00",
		"version":     "k3s version v1.36.3+k3s1 (66a14f0e)\ngo version go1.26.8\n",
		"config":      "tls-san: k3s.lan\n\x00",
		"config.d":    "kubelet-arg: [v=2]\netcd-s3-session-token: s3cret\n\x00tls-san+: [b.lan]\n\x00",
		"etcd":        "yes\n", "encrypted": "yes\n", "keepalived": "inactive\n",
		"token":      "K10abc::server:s3cret\n",
		"kubeconfig": "apiVersion: v1\n",
		"addresses":  `[{"ifname":"lo","address":"00:00:00:00:00:00","addr_info":[]},{"ifname":"eth0","address":"bc:24:11:00:00:01","addr_info":[{"family":"inet","local":"192.0.2.31","prefixlen":24}]}]`,
		"routes":     `[{"dst":"default","gateway":"192.0.2.1","dev":"eth0"}]`,
		"resolv":     "nameserver 127.0.0.53\nnameserver 192.0.2.1\n",
		"localtime":  "/usr/share/zoneinfo/Europe/Zurich\n",
	}
}

func TestMachine(t *testing.T) {
	got, err := server().machine("alpha")
	if err != nil {
		t.Fatal(err)
	}
	want := &Machine{
		Hostname: "alpha", Arch: "amd64", Role: config.RoleServer, Version: "v1.36.3+k3s1", Binary: "/usr/local/bin/k3s", SHA256: "abcd",
		Settings: Settings{
			"cluster-init": true, "disable": []string{"traefik"}, "tls-san": []string{"k3s.lan", "b.lan"},
			"kubelet-arg": []string{"v=2"}, "token": "***", "etcd-s3-session-token": "***",
		},
		Datastore: Etcd, Encrypted: true, Timezone: "Europe/Zurich", Token: "s3cret", Kubeconfig: []byte("apiVersion: v1\n"),
		Addresses: []Address{{"eth0", "BC:24:11:00:00:01", netip.MustParsePrefix("192.0.2.31/24")}},
		Variables: []string{"CONTAINERD_HTTP_PROXY", "no_proxy"},
		Gateway:   netip.MustParseAddr("192.0.2.1"), DNSServers: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestMachinesThatAreNone(t *testing.T) {
	tests := map[string]struct {
		change func(answers)
		want   string
	}{
		"no K3s": {func(a answers) { delete(a, "active k3s"); delete(a, "command k3s") }, "alpha: this machine runs no K3s"},
		"K3s that is stopped": {func(a answers) { a["active k3s"] = "inactive\n" },
			"alpha: k3s.service is inactive: what is read is a K3s that runs"},
		"another data directory": {func(a answers) { a["config"] = "data-dir: /srv/k3s\n\x00" },
			"alpha: its data is in /srv/k3s, and k3lab knows only K3s that keep it in /var/lib/rancher/k3s"},
		"an unknown processor": {func(a answers) { a["arch"] = "riscv64\n" }, "alpha: k3lab knows amd64 and arm64, and its processor is riscv64"},
		"no K3s by what it says": {func(a answers) { a["version"] = "rke2 version v1.36.3\n" },
			`alpha: /usr/local/bin/k3s --version does not say which K3s it is: "rke2 version v1.36.3"`},
		"no token":      {func(a answers) { a["token"] = "" }, "alpha: /var/lib/rancher/k3s/server/token holds no token of a server"},
		"no kubeconfig": {func(a answers) { delete(a, "kubeconfig") }, "alpha: there is no kubeconfig at /etc/rancher/k3s/k3s.yaml"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := server()
			tt.change(a)
			_, err := a.machine("alpha")
			if err == nil {
				t.Fatal("accepted")
			}
			if got, _, _ := strings.Cut(err.Error(), " (try: "); got != tt.want {
				t.Errorf("error %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDatastores(t *testing.T) {
	for want, change := range map[Datastore]func(answers){
		Etcd:     func(answers) {},
		SQLite:   func(a answers) { a["etcd"] = "" },
		External: func(a answers) { a["config"] = "datastore-endpoint: mysql://u:p@tcp(db)/k3s\n\x00" },
	} {
		a := server()
		change(a)
		m, err := a.machine("alpha")
		if err != nil || m.Datastore != want {
			t.Errorf("%v (%v), want %s", m, err, want)
		}
	}
}
