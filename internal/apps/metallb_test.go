package apps

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// module has a Go module's files at hand, or skips the test: MetalLB publishes its
// chart in one.
func module(t *testing.T, at string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", at)
	cmd.Dir = t.TempDir() // no go.mod of ours is asked
	out, err := cmd.Output()
	var m struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &m); err != nil || jsonErr != nil {
		t.Skipf("%s cannot be had here: %v %s", at, err, m.Error)
	}
	return m.Dir
}

const pool = `apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: home}
spec: {addresses: [192.0.2.200-192.0.2.220]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: home}
spec: {ipAddressPools: [home]}
`

// TestMetalLB installs the real chart, with objects of its own kinds after it.
// Nothing answers its webhook here, because no container runs: so these objects are
// refused first, and taken when the chart comes without the webhook.
func TestMetalLB(t *testing.T) {
	b := newBench(t)
	chart := filepath.Join(module(t, "go.universe.tf/metallb@v0.15.2"), "charts", "metallb")
	b.write("metallb/app.yaml", "pod_security: privileged\ntimeout: 8s\n", "metallb/manifests/pool.yaml", pool,
		"metallb/values.yaml", "speaker: {frr: {enabled: false}}\n")
	at := filepath.Join(b.root, Dir, "metallb", "chart")
	if err := os.CopyFS(at, os.DirFS(chart)); err != nil {
		t.Fatal(err)
	}
	e := b.engine()
	p, err := e.Plan(t.Context())
	if err != nil || p.Err() != nil {
		t.Fatal(err, p.Err())
	}
	lines := shown(p)
	for _, want := range []string{
		"metallb: create release metallb/metallb: version 0.15.2",
		"metallb: create CustomResourceDefinition ipaddresspools.metallb.io",
		"metallb: create Deployment metallb/metallb-controller",
		"metallb: create DaemonSet metallb/metallb-speaker",
		"metallb: deferred: IPAddressPool home: its kind is made by metallb first",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("the plan does not show %q:\n%s", want, strings.Join(lines, "\n"))
		}
	}
	err = e.Apply(t.Context(), &writing{}, p.Changes)
	for _, part := range []string{"app metallb: kubernetes/apps/metallb: ", "failed calling webhook", "(try: kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations)"} {
		if !strings.Contains(fmt.Sprint(err), part) {
			t.Errorf("a webhook that nothing answers: the error does not say %q: %v", part, err)
		}
	}
	states, err := b.engine().States(t.Context())
	if err != nil || len(states) != 2 || states[0].Status != "deployed" || states[0].Chart != "metallb 0.15.2" || states[0].Problem != "" || states[1].Status != "not installed" {
		t.Errorf("%+v, %v: want the chart itself installed and healthy", states, err)
	}

	webhooks := filepath.Join(at, "templates", "webhooks.yaml")
	text, err := os.ReadFile(webhooks)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n---\n")
	if !found {
		t.Fatal("the chart is another one than this test knows")
	}
	if err := os.WriteFile(webhooks, []byte(rest), 0o600); err != nil {
		t.Fatal(err)
	}
	b.apply()
	b.want(b.plan())
	b.write("metallb/manifests/pool.yaml", strings.Replace(pool, "[192.0.2.200-192.0.2.220]", "192.0.2.200-192.0.2.220", 1))
	err = b.plan().Err()
	if err == nil || !strings.Contains(err.Error(), "IPAddressPool metallb/home: refused by the API: ") || !strings.Contains(err.Error(), "addresses") {
		t.Errorf("addresses that are no list: %v", err)
	}
}
