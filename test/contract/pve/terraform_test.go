package pve

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	tfjson "github.com/hashicorp/terraform-json"
)

// terraform runs the real terraform on a copy of a configuration.
type terraform struct {
	t   *testing.T
	bin string
	dir string
	env []string
}

// findMirror returns the provider mirror, or skips the test.
func findMirror(t *testing.T) string {
	t.Helper()
	mirror := os.Getenv("K3LAB_PROVIDER_MIRROR")
	if mirror == "" {
		dir, err := filepath.Abs("../../../bin/mirror")
		if err != nil {
			t.Fatal(err)
		}
		mirror = dir
	}
	if _, err := os.Stat(filepath.Join(mirror, "registry.terraform.io/bpg/proxmox/0.80.0")); err != nil {
		t.Skipf("the provider bpg/proxmox 0.80.0 is not in %s (make provider)", mirror)
	}
	return mirror
}

// newTerraform copies the configuration and initialises it, offline.
func newTerraform(t *testing.T, c *cluster, source string) *terraform {
	t.Helper()
	bin := os.Getenv("K3LAB_TERRAFORM")
	if bin == "" {
		p, err := exec.LookPath("terraform")
		if err != nil {
			t.Skip("terraform is not installed")
		}
		bin = p
	}
	mirror := findMirror(t)
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	rc := filepath.Join(t.TempDir(), "terraform.rc")
	text := fmt.Sprintf("disable_checkpoint = true\nprovider_installation {\n  filesystem_mirror {\n    path = %q\n  }\n}\n", mirror)
	if err := os.WriteFile(rc, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(),
		"TF_CLI_CONFIG_FILE="+rc, "TF_IN_AUTOMATION=1", "TF_INPUT=0", "CHECKPOINT_DISABLE=1",
		"SSL_CERT_FILE="+c.caFile,
		"PROXMOX_VE_ENDPOINT="+c.url, "PROXMOX_VE_API_TOKEN="+c.tokenText(),
	)
	tf := &terraform{t: t, bin: bin, dir: dir, env: env}
	tf.run("init", "-no-color")
	return tf
}

// with reports to another test.
func (tf *terraform) with(t *testing.T) *terraform {
	other := *tf
	other.t = t
	return &other
}

// try runs a command and returns its exit code and output.
func (tf *terraform) try(args ...string) (int, string) {
	tf.t.Helper()
	ctx, cancel := context.WithTimeout(tf.t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tf.bin, args...)
	cmd.Dir, cmd.Env = tf.dir, tf.env
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		tf.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func (tf *terraform) run(args ...string) string {
	tf.t.Helper()
	code, out := tf.try(args...)
	if code != 0 {
		tf.t.Fatalf("terraform %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

func (tf *terraform) apply(vars ...string) {
	tf.t.Helper()
	tf.run(append([]string{"apply", "-no-color", "-auto-approve"}, vars...)...)
}

// noChanges fails unless a plan is empty.
func (tf *terraform) noChanges(vars ...string) {
	tf.t.Helper()
	if code, out := tf.try(append([]string{"plan", "-no-color", "-detailed-exitcode"}, vars...)...); code != 0 {
		tf.t.Fatalf("plan is not empty (exit code %d)\n%s", code, out)
	}
}

// plan returns what would be done to which resource, sorted.
func (tf *terraform) plan(vars ...string) []string {
	tf.t.Helper()
	tf.run(append([]string{"plan", "-no-color", "-out=plan.bin"}, vars...)...)
	var p tfjson.Plan
	if err := json.Unmarshal([]byte(tf.run("show", "-json", "plan.bin")), &p); err != nil {
		tf.t.Fatal(err)
	}
	out := []string{}
	for _, r := range p.ResourceChanges {
		if r.Change.Actions.NoOp() || r.Change.Actions.Read() {
			continue
		}
		var verbs []string
		for _, a := range r.Change.Actions {
			verbs = append(verbs, string(a))
		}
		out = append(out, strings.Join(verbs, "+")+" "+r.Address)
	}
	sort.Strings(out)
	return out
}

func (tf *terraform) wantPlan(want []string, vars ...string) {
	tf.t.Helper()
	if d := cmp.Diff(want, tf.plan(vars...)); d != "" {
		tf.t.Fatalf("plan (-want +got):\n%s", d)
	}
}
