package tfprovider_test

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/k3lab/k3lab/internal/secrets"
	"github.com/k3lab/k3lab/internal/tfprovider"
)

// TestMain lets terraform start this test binary as the provider.
func TestMain(m *testing.M) {
	if tfprovider.IsPlugin() {
		if err := tfprovider.Serve(context.Background(), "0.0.1"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const configuration = `
terraform {
  required_providers {
    k3lab = { source = "k3lab.internal/k3lab/k3lab" }
  }
}
variable "ip" { default = "192.0.2.11" }
variable "own_key" {
  type    = string
  default = null
}
variable "users" {
  type    = list(string)
  default = []
}
resource "k3lab_ssh_key" "operator" {
  private_key_path  = "${path.root}/../.k3lab/ssh/id_ed25519"
  secrets_file      = "${path.root}/../secrets.sops.yaml"
  existing_key_file = var.own_key
  user_public_keys  = var.users
}
resource "k3lab_inventory" "hosts" {
  path             = "${path.root}/../ansible/inventory/hosts.ini"
  user             = "k3lab"
  private_key_path = k3lab_ssh_key.operator.private_key_path
  known_hosts_path = "${path.root}/../.k3lab/known_hosts"
  machines = {
    server-1 = { role = "server", ip = var.ip, labels = {} }
    agent-1  = { role = "agent", ip = "192.0.2.21" }
    nas      = { role = "none", ip = "192.0.2.31" }
  }
}
output "authorized" { value = k3lab_ssh_key.operator.authorized_keys }
`

// folder has two spaces, because ssh prints a path it has split at one as it was.
const folder = "my  lab"

// lab is a workspace driven by a real terraform or tofu.
type lab struct {
	t           *testing.T
	dir, binary string
	env         []string
}

func newLab(t *testing.T, binary string) *lab {
	t.Helper()
	path, err := exec.LookPath(binary)
	if err != nil {
		t.Skipf("%s is not installed", binary)
	}
	dir := filepath.Join(t.TempDir(), folder)
	l := &lab{t: t, dir: dir, binary: path}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	plugins := filepath.Join(dir, "plugins", tfprovider.Address, "0.0.1", runtime.GOOS+"_"+runtime.GOARCH)
	rc := fmt.Sprintf("disable_checkpoint = true\nprovider_installation {\n filesystem_mirror {\n path = %q\n }\n}\n", filepath.Join(dir, "plugins"))
	for path, text := range map[string]string{"terraform/main.tf": configuration, "rc": rc, "home/.keep": ""} {
		l.write(path, text)
	}
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(plugins, "terraform-provider-k3lab_v0.0.1")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", filepath.Join(dir, "home"))
	t.Setenv("XDG_CONFIG_HOME", "")
	l.env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+filepath.Join(dir, "rc"), "TF_IN_AUTOMATION=1")
	l.ok("init", "-no-color")
	return l
}

func (l *lab) path(p string) string { return filepath.Join(l.dir, p) }

func (l *lab) write(path, text string) {
	l.t.Helper()
	if err := os.MkdirAll(filepath.Dir(l.path(path)), 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(l.path(path), []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) read(path string) string {
	l.t.Helper()
	text, err := os.ReadFile(l.path(path))
	if err != nil {
		l.t.Fatal(err)
	}
	return string(text)
}

// run is terraform with -chdir, as a user by hand.
func (l *lab) run(args ...string) (string, error) {
	cmd := exec.Command(l.binary, append([]string{"-chdir=" + l.path("terraform")}, args...)...)
	cmd.Env = l.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (l *lab) ok(args ...string) string {
	l.t.Helper()
	out, err := l.run(args...)
	if err != nil {
		l.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

func (l *lab) apply(vars ...string) {
	l.t.Helper()
	l.ok(append([]string{"apply", "-auto-approve", "-no-color"}, vars...)...)
}

// changes reports whether a plan has changes.
func (l *lab) changes(vars ...string) (bool, string) {
	l.t.Helper()
	out, err := l.run(append([]string{"plan", "-detailed-exitcode", "-no-color"}, vars...)...)
	if err == nil {
		return false, out
	}
	if e := (*exec.ExitError)(nil); errors.As(err, &e) && e.ExitCode() == 2 {
		return true, out
	}
	l.t.Fatalf("plan: %v\n%s", err, out)
	return false, ""
}

func TestWithRealTerraform(t *testing.T) {
	for _, binary := range []string{"terraform", "tofu"} {
		t.Run(binary, func(t *testing.T) {
			l := newLab(t, binary)
			l.apply()
			if changed, out := l.changes(); changed {
				t.Fatalf("a plan after apply is not empty:\n%s", out)
			}
			key := l.read(".k3lab/ssh/id_ed25519")
			t.Run("the private key is nowhere but in its file and, encrypted, in the secrets", func(t *testing.T) { l.keyIsSecret(t, key) })
			t.Run("a key file that is gone comes back", func(t *testing.T) { l.keyComesBack(t, key) })
			t.Run("a key that is lost is not replaced", func(t *testing.T) { l.lostKeyStops(t) })
			t.Run("two different keys stop the plan", func(t *testing.T) { l.differentKeysStop(t, key) })
			t.Run("a changed inventory is seen and mended", func(t *testing.T) { l.inventoryIsMended(t) })
			t.Run("another key of the user's, and back", func(t *testing.T) { l.ownKeyAndBack(t, key) })
			t.Run("a second computer, without state", func(t *testing.T) { l.secondComputer(t, key) })
			t.Run("the user's keys come first", func(t *testing.T) { l.usersKeysComeFirst(t) })
			t.Run("destroy removes the files and keeps the secret", func(t *testing.T) { l.destroyKeepsSecret(t) })
		})
	}
}

func (l *lab) keyIsSecret(t *testing.T, key string) {
	if info, err := os.Stat(l.path(".k3lab/ssh/id_ed25519")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want mode 0600", info, err)
	}
	secretPart := strings.Split(key, "\n")[1]
	for _, file := range []string{"terraform/terraform.tfstate", "secrets.sops.yaml", "ansible/inventory/hosts.ini"} {
		if strings.Contains(l.read(file), secretPart) || strings.Contains(l.read(file), "PRIVATE KEY") {
			t.Errorf("%s holds the private key", file)
		}
	}
}

func (l *lab) keyComesBack(t *testing.T, key string) {
	if err := os.RemoveAll(l.path(".k3lab/ssh")); err != nil {
		t.Fatal(err)
	}
	if changed, out := l.changes(); changed {
		t.Errorf("plan has changes:\n%s", out)
	}
	if l.read(".k3lab/ssh/id_ed25519") != key {
		t.Error("another key came back")
	}
}

func (l *lab) lostKeyStops(t *testing.T) {
	kept := l.read("secrets.sops.yaml")
	defer l.write("secrets.sops.yaml", kept)
	for _, path := range []string{".k3lab/ssh", "secrets.sops.yaml"} {
		if err := os.RemoveAll(l.path(path)); err != nil {
			t.Fatal(err)
		}
	}
	out, err := l.run("plan", "-no-color")
	if err == nil || !strings.Contains(strings.Join(strings.Fields(strings.ReplaceAll(out, "│", "")), " "), "the private key file is gone and the secrets file does not hold it") {
		t.Errorf("plan: %v, want it stopped\n%s", err, out)
	}
	if _, err := os.Stat(l.path(".k3lab/ssh/id_ed25519")); err == nil {
		t.Error("a new key was made silently")
	}
}

func (l *lab) differentKeysStop(t *testing.T, key string) {
	store, err := secrets.Open(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	l.changes() // restores the file
	if err := store.Set(secrets.NewValue("another key\n"), "ssh_private_key"); err != nil {
		t.Fatal(err)
	}
	out, err := l.run("plan", "-no-color")
	if err == nil || !strings.Contains(strings.Join(strings.Fields(strings.ReplaceAll(out, "│", "")), " "), "are different keys") {
		t.Errorf("plan: %v, want it stopped\n%s", err, out)
	}
	if err := store.Set(secrets.NewValue(key), "ssh_private_key"); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) inventoryIsMended(t *testing.T) {
	good := l.read("ansible/inventory/hosts.ini")
	l.write("ansible/inventory/hosts.ini", good+"mallory ansible_host=192.0.2.66\n")
	changed, out := l.changes()
	if !changed || !strings.Contains(out, "0 to add, 1 to change, 0 to destroy") {
		t.Errorf("the changed file is not one change in place:\n%s", out)
	}
	l.apply()
	if l.read("ansible/inventory/hosts.ini") != good {
		t.Error("the file was not mended")
	}
	if err := os.Remove(l.path("ansible/inventory/hosts.ini")); err != nil {
		t.Fatal(err)
	}
	l.apply()
	if l.read("ansible/inventory/hosts.ini") != good {
		t.Error("the removed file was not written again")
	}
	if changed, _ := l.changes("-var=ip=192.0.2.12"); !changed {
		t.Error("a new address is no change")
	}
}

// ownKeyAndBack names a key of the user's and leaves it again.
func (l *lab) ownKeyAndBack(t *testing.T, key string) {
	private, err := os.ReadFile(l.path(".k3lab/ssh/id_ed25519"))
	if err != nil {
		t.Fatal(err)
	}
	ownKey, ownPublicKey := l.generateKey()
	l.write("mine/id", ownKey)
	own := "-var=own_key=" + l.path("mine/id")
	before := l.ok("output", "-json", "authorized")
	l.apply(own)
	if changed, out := l.changes(own); changed {
		t.Errorf("a plan after apply is not empty:\n%s", out)
	}
	if out := l.ok("output", "-json", "authorized"); strings.TrimSpace(out) != `["`+ownPublicKey+` k3lab"]` {
		t.Errorf("authorized keys: %s", out)
	}
	l.apply()
	if out := l.ok("output", "-json", "authorized"); out != before {
		t.Errorf("back again, authorized keys: %s, want %s", out, before)
	}
	if l.read("mine/id") != ownKey || l.read(".k3lab/ssh/id_ed25519") != string(private) || string(private) != key {
		t.Error("a key file was changed")
	}
}

// TestFirstOnlyTheUsersKey: no key is made as long as the user's own is named,
// and one is made, as a change in place, once it no longer is.
func TestFirstOnlyTheUsersKey(t *testing.T) {
	l := newLab(t, "terraform")
	private, _ := l.generateKey()
	l.write("mine/id", private)
	l.apply("-var=own_key=" + l.path("mine/id"))
	for _, path := range []string{".k3lab/ssh/id_ed25519", secrets.FileName} {
		if _, err := os.Stat(l.path(path)); err == nil {
			t.Errorf("%s was made", path)
		}
	}
	if changed, out := l.changes(); !changed || !strings.Contains(out, "0 to add, 1 to change, 0 to destroy") {
		t.Errorf("leaving the user's key is not a change in place:\n%s", out)
	}
	l.apply()
	if changed, out := l.changes(); changed {
		t.Errorf("a plan after apply is not empty:\n%s", out)
	}
	l.keyIsSecret(t, l.read(".k3lab/ssh/id_ed25519"))
}

// generateKey makes a key pair as ssh-keygen does.
func (l *lab) generateKey() (private, public string) {
	l.t.Helper()
	publicRaw, raw, err := ed25519.GenerateKey(nil)
	if err != nil {
		l.t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(raw, "mine")
	if err != nil {
		l.t.Fatal(err)
	}
	sshPublic, err := ssh.NewPublicKey(publicRaw)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block)), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshPublic)))
}

// secondComputer has the repository, with its secrets, and nothing else.
func (l *lab) secondComputer(t *testing.T, key string) {
	for _, path := range []string{".k3lab", "terraform/terraform.tfstate", "ansible/inventory/hosts.ini"} {
		if err := os.RemoveAll(l.path(path)); err != nil {
			t.Fatal(err)
		}
	}
	l.apply()
	if l.read(".k3lab/ssh/id_ed25519") != key {
		t.Error("another key was made")
	}
	if changed, out := l.changes(); changed {
		t.Errorf("a plan after apply is not empty:\n%s", out)
	}
}

func (l *lab) usersKeysComeFirst(t *testing.T) {
	_, mine := l.generateKey()
	mine += " me@home"
	l.apply(`-var=users=["` + mine + `"]`)
	out := l.ok("output", "-json", "authorized")
	if !strings.HasPrefix(strings.TrimSpace(out), `["`+mine+`"`) || strings.Count(out, "ssh-ed25519") != 2 {
		t.Errorf("authorized keys: %s", out)
	}
}

func (l *lab) destroyKeepsSecret(t *testing.T) {
	l.ok("destroy", "-auto-approve", "-no-color")
	for _, path := range []string{".k3lab/ssh/id_ed25519", ".k3lab/ssh/id_ed25519.pub", "ansible/inventory/hosts.ini"} {
		if _, err := os.Stat(l.path(path)); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	store, err := secrets.Open(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Get("ssh_private_key"); err != nil {
		t.Errorf("the secret is gone: %v", err)
	}
}
