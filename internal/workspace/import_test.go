package workspace

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/secrets"
)

func importedLab() Imported {
	return Imported{
		LabName: "home", User: "ops", KeyFile: "~/.ssh/id_ed25519", Version: "v1.36.3+k3s1", CNI: "flannel", FlannelBackend: "vxlan",
		PodCIDR: "10.42.0.0/16", ServiceCIDR: "10.43.0.0/16", ClusterDomain: "cluster.local", Disable: []string{"traefik"},
		ServerConfig: map[string]any{"kubelet-arg": []string{"max-pods=200"}, "write-kubeconfig-mode": "644"},
		Timezone:     "Europe/Zurich", Bridge: "vmbr1", CIDR: "192.0.2.0/24", Gateway: "192.0.2.1", VIP: "192.0.2.10",
		DNSServers: []string{"192.0.2.1"}, TLSSANs: []string{"k3s.home.arpa"},
		Machines: []ImportedMachine{
			{Name: "alpha", Role: "server", Hypervisor: "pve1", VMID: 301, Cores: 4, MemoryMiB: 8192, BalloonMiB: 2048, IP: "192.0.2.31", Arch: "amd64", Taints: []string{"quorum-only=true:NoSchedule"}},
			{Name: "beta", Role: "agent", Hypervisor: "none", IP: "192.0.2.32", Arch: "arm64", Labels: map[string]string{"disk": "ssd"}},
		},
		Endpoint:    &ImportedEndpoint{Name: "home", URL: "https://192.0.2.2:8006", CAPEM: []byte("PEM"), Token: secrets.NewValue("a@b!c=token-s3cret")},
		Hypervisors: []ImportedHypervisor{{Name: "pve1", Storage: "local-zfs"}},
		Token:       secrets.NewValue("cluster-s3cret"),
	}
}

// TestImportedWorkspace writes a whole one, and reads back what it says.
func TestImportedWorkspace(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("SOPS_AGE_KEY_FILE", "")
	place := filepath.Join(t.TempDir(), "lab")
	d, err := NewDraft(place)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Write(importedLab()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(place); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is in its place before it is whole: %v", err)
	}
	if err := errors.Join(d.Keep(), d.Discard()); err != nil {
		t.Fatal(err)
	}
	lab, problems := config.Load(place)
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	if lab.Manage == nil || len(lab.Manage) != 0 {
		t.Errorf("manage is %v, want nothing to be managed", lab.Manage)
	}
	alpha, beta := lab.Machine("alpha"), lab.Machine("beta")
	if !alpha.Adopted || alpha.VMID != 301 || alpha.Cores != 4 || alpha.MemoryMiB != 8192 || alpha.BalloonMiB != 2048 || alpha.OnBoot {
		t.Errorf("alpha: %+v", alpha)
	}
	if beta.Adopted || beta.Arch != "arm64" || beta.Labels["disk"] != "ssd" {
		t.Errorf("beta: %+v", beta)
	}
	want := map[string]any{"kubelet-arg": []any{"max-pods=200"}, "write-kubeconfig-mode": "644"}
	if d := cmp.Diff(want, lab.K3s.ServerConfig); d != "" {
		t.Errorf("server_config (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"traefik"}, lab.K3s.Disable); d != "" {
		t.Errorf("disable (-want +got):\n%s", d)
	}
	store, err := secrets.Open(place)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"k3s_token": "cluster-s3cret", "proxmox_api_tokens.home": "a@b!c=token-s3cret"} {
		if got, err := store.Get(strings.Split(path, ".")...); err != nil || got.Reveal() != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	err = filepath.WalkDir(place, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), "s3cret") {
			t.Errorf("%s holds a secret in plain", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDraftIsRefusedOrGone(t *testing.T) {
	place := filepath.Join(t.TempDir(), "lab")
	if err := os.MkdirAll(filepath.Join(place, "mine"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := NewDraft(place); err == nil || !strings.Contains(err.Error(), "it is there already and not empty") {
		t.Errorf("a directory that is in use: %v", err)
	}
	other := filepath.Join(t.TempDir(), "lab")
	d, err := NewDraft(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Discard(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Dir(other)); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
