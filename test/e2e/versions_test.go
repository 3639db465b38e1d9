package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// canaryRegistry is the secret that holds the password of a registry.
const canaryRegistry = "registry.e2e"

// withSupplies has the lab pull from a registry of its own and bring an archive of
// images along, from its first up on.
func withSupplies(t *testing.T, l *lab) {
	t.Helper()
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		t.Fatal(err)
	}
	cmd := l.command(t.Context(), "-C", l.dir, "secrets", "set", canaryRegistry)
	cmd.Stdin = strings.NewReader(hex.EncodeToString(random))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("secrets set: %v\n%s", err, out)
	}
	ca, err := os.ReadFile(l.sandbox().CAFile)
	if err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string][]byte{"certs/registry.pem": ca, "images/e2e.tar": imageArchive(t)} {
		path := filepath.Join(l.dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l.replaceSettings(t, "", supplies)
}

// supplies stand in all.yaml below k3s.
const supplies = `  images: [images/e2e.tar]
  registries:
    mirrors:
      docker.io: {endpoints: ["https://registry.e2e.test:5000"]}
    configs:
      registry.e2e.test:5000:
        auth: {username: pull, password_secret: ` + canaryRegistry + `}
        tls: {ca_file: certs/registry.pem}
`

// replaceSettings changes what stands first below k3s in all.yaml.
func (l *lab) replaceSettings(t *testing.T, before, after string) {
	t.Helper()
	file := filepath.Join(l.dir, "ansible/group_vars/all.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), "\nk3s:\n"+before, "\nk3s:\n"+after, 1)
	if changed == string(text) {
		t.Fatalf("all.yaml has no k3s with\n%s", before)
	}
	if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
}

// imageArchive is an image as docker save writes it, with a layer of 24 MiB.
func imageArchive(t *testing.T) []byte {
	t.Helper()
	content := make([]byte, 24<<20)
	if _, err := rand.Read(content); err != nil {
		t.Fatal(err)
	}
	layer := tarOf(t, map[string][]byte{"content": content})
	sum := sha256.Sum256(layer)
	config := marshal(t, map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	})
	manifest := marshal(t, []any{map[string]any{"Config": "config.json", "RepoTags": []string{"docker.io/e2e/bundle:1"}, "Layers": []string{"layer.tar"}}})
	return tarOf(t, map[string][]byte{"layer.tar": layer, "config.json": config, "manifest.json": manifest})
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func tarOf(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// suppliesArrive: registries and images are on every machine as the settings say,
// and when they say so no longer they go, and nothing else.
func suppliesArrive(t *testing.T, l *lab) {
	archive, err := os.ReadFile(filepath.Join(l.dir, "images/e2e.tar"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(archive)
	digest := hex.EncodeToString(sum[:])
	password := strings.TrimSpace(l.silent("secrets", "get", canaryRegistry))
	const theirs = "/var/lib/rancher/k3s/agent/images/theirs.keep"
	look := `cd /etc/rancher/k3s; stat -c "%a %U %n" registries*; cat registries.yaml; sha256sum /var/lib/rancher/k3s/agent/images/k3lab-*; ls -A /var/lib/rancher/k3lab`
	want := fmt.Sprintf(`644 root registries-registry.e2e.test_5000.pem
600 root registries.yaml
# Written by k3lab from the lab's settings; changes made here are put back.
configs:
  registry.e2e.test:5000:
    auth:
      password: %s
      username: pull
    tls:
      ca_file: /etc/rancher/k3s/registries-registry.e2e.test_5000.pem
mirrors:
  docker.io:
    endpoint:
      - https://registry.e2e.test:5000
%s  /var/lib/rancher/k3s/agent/images/k3lab-%s-e2e.tar
`, password, digest, digest[:12])
	for _, m := range nodes {
		if d := cmp.Diff(want, onStdin(l, m, "", look)); d != "" {
			t.Errorf("%s (-want +got):\n%s", m, strings.ReplaceAll(d, password, "***"))
		}
		onStdin(l, m, "", "touch "+theirs)
	}
	l.replaceSettings(t, supplies, "")
	var planned []string
	for _, m := range nodes {
		unit := "k3s.service"
		if strings.HasPrefix(m, "agent") {
			unit = "k3s-agent.service"
		}
		for _, c := range []string{
			"delete leftovers /etc/rancher/k3s/registries.yaml", "delete leftovers /etc/rancher/k3s/registries-*.pem",
			"delete leftovers /var/lib/rancher/k3s/agent/images/k3lab-*", "restart unit " + unit,
		} {
			planned = append(planned, m+": "+c)
		}
	}
	if d := cmp.Diff(planned, describe(l.plan(2))); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
	l.exit(0, "up", "--yes")
	whole(t, l)
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan afterwards: %v", describe(changes))
	}
	var left []string
	for _, m := range nodes {
		left = append(left, m+": "+onStdin(l, m, "", "find /etc/rancher/k3s -name \"registries*\" -o -name theirs.keep; find /var/lib/rancher/k3s/agent/images /var/lib/rancher/k3lab -type f -name \"k3lab-*\" -o -name theirs.keep; rm "+theirs))
	}
	if slices.ContainsFunc(left, func(s string) bool { return !strings.HasSuffix(s, ": "+theirs+"\n") }) {
		t.Errorf("left on the machines, where only %s is not ours:\n%s", theirs, strings.Join(left, ""))
	}
}
