package workspace_test

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/secrets"
	"github.com/k3lab/k3lab/internal/workspace"
)

var update = flag.Bool("update", false, "write the golden files anew")

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBn5gMEzhVCEbvS6BSqIHXmkvgXHPjkyfiRXuFXo6BYm"

// user gives the test a user of its own, with no age key and no git settings.
func user(t *testing.T) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("GIT_CEILING_DIRECTORIES", os.TempDir())
	t.Setenv("XDG_CONFIG_HOME", "")
	for _, name := range []string{"SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE", "SOPS_AGE_KEY_CMD", "GIT_DIR", "GIT_WORK_TREE"} {
		t.Setenv(name, "")
		os.Unsetenv(name)
	}
}

func at(t *testing.T, dir string) workspace.Dir {
	t.Helper()
	d, err := workspace.At(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mustInit(t *testing.T, d workspace.Dir, opts workspace.Options) *workspace.Result {
	t.Helper()
	result, err := workspace.Init(d, opts)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// contents maps every file below dir to its text; what stays on this computer
// (.git, .k3lab, the lock of the secrets) is left out.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			if entry != nil && (entry.Name() == ".git" || entry.Name() == ".k3lab") {
				return filepath.SkipDir
			}
			return err
		}
		if entry.Name() == ".secrets.lock" {
			return nil
		}
		text, err := os.ReadFile(path)
		relative, _ := filepath.Rel(dir, path)
		out[relative] = string(text)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return out
}

func sandbox(hypervisors int, cidr string) *workspace.Sandbox {
	s := &workspace.Sandbox{URL: "https://127.0.0.1:40123", CAPEM: []byte("-----BEGIN CERTIFICATE-----\n"), Token: "root@pam!k3lab=1-2-3"}
	if cidr != "" {
		s.CIDR = netip.MustParsePrefix(cidr)
		s.Gateway = s.CIDR.Masked().Addr().Next()
	}
	for i := range hypervisors {
		s.Hypervisors = append(s.Hypervisors, workspace.SandboxHypervisor{Name: fmt.Sprintf("sim%d", i+1), MemoryMiB: 65536})
	}
	return s
}

// TestExamples compares the settings of each example with golden files, and
// what config makes of them with what the example promises.
func TestExamples(t *testing.T) {
	home := []string{"server-1 server pve1 192.168.10.11", "agent-1 agent pve1 192.168.10.21", "agent-2 agent pve1 192.168.10.22"}
	tests := map[string]struct {
		opts workspace.Options
		want []string // name, role, hypervisor, address
		vip  string
	}{
		"single": {workspace.Options{Example: "single"}, home[:1], ""},
		"small":  {workspace.Options{Example: "small"}, home, ""},
		"ha": {workspace.Options{Example: "ha"}, []string{
			"server-1 server pve1 192.168.10.11", "server-2 server pve2 192.168.10.12", "server-3 server pve3 192.168.10.13",
			"agent-1 agent pve1 192.168.10.21", "agent-2 agent pve2 192.168.10.22",
		}, "192.168.10.10"},
		"metal": {workspace.Options{Example: "metal"}, []string{
			"server-1 server none 192.168.10.11", "agent-1 agent none 192.168.10.21", "agent-2 agent none 192.168.10.22",
		}, ""},
		"ha-in-a-sandbox": {workspace.Options{Example: "ha", Sandbox: sandbox(2, "198.18.4.0/24")}, []string{
			"server-1 server sim1 198.18.4.11", "server-2 server sim2 198.18.4.12", "server-3 server sim1 198.18.4.13",
			"agent-1 agent sim2 198.18.4.21", "agent-2 agent sim1 198.18.4.22",
		}, "198.18.4.10"},
		"single-in-a-sandbox-without-machines": {workspace.Options{Example: "single", Sandbox: sandbox(1, "")},
			[]string{"server-1 server sim1 192.168.10.11"}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			user(t)
			d := at(t, t.TempDir())
			tt.opts.LabName = "home"
			tt.opts.PublicKeys = []string{publicKey + " me@pc\n"}
			mustInit(t, d, tt.opts)
			lab, problems := config.Load(d.Root())
			if problems.Err() != nil {
				t.Fatalf("k3lab validate:\n%s", problems.Text())
			}
			var got []string
			for _, m := range lab.Machines {
				got = append(got, fmt.Sprintf("%s %s %s %s", m.Name, m.Role, m.Hypervisor, m.IP))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("machines (-want +got):\n%s", diff)
			}
			if vip := lab.Network.VIP; (tt.vip == "") == vip.IsValid() || vip.IsValid() && vip.String() != tt.vip {
				t.Errorf("vip %v, want %q", vip, tt.vip)
			}
			var settings strings.Builder
			for _, file := range config.Files {
				text, err := os.ReadFile(d.Path(file))
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&settings, "-- %s --\n%s", file, text)
			}
			golden(t, filepath.Join("testdata", "examples", name+".golden"), settings.String())
		})
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// TestInitLeavesWhatIsTheUsers: run again it changes nothing; a file that
// differs stops it, and --force replaces that file alone.
func TestInitLeavesWhatIsTheUsers(t *testing.T) {
	user(t)
	d := at(t, filepath.Join(t.TempDir(), "new", "lab"))
	opts := workspace.Options{Example: "ha", LabName: "home", Sandbox: sandbox(2, "198.18.4.0/24")}
	first := mustInit(t, d, opts)
	made := contents(t, d.Root())
	for _, file := range first.Files {
		if _, there := made[file]; !there {
			t.Errorf("%s is said to be written and is not there", file)
		}
	}
	if len(first.Notices) != 1 || !strings.HasPrefix(first.Notices[0], "Your age key is new: "+os.Getenv("HOME")) {
		t.Errorf("notices: %q", first.Notices)
	}
	if diff := cmp.Diff(&workspace.Result{}, mustInit(t, d, opts)); diff != "" {
		t.Errorf("a second init (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(made, contents(t, d.Root())); diff != "" {
		t.Errorf("a second init changes (-was +is):\n%s", diff)
	}

	edit := func(file, text string) {
		if err := os.WriteFile(d.Path(file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	edit("terraform/vars/nodes.yaml", "mine")
	edit("terraform/main.tf", "mine")
	edit(".sops.yaml", made[".sops.yaml"]+"# mine\n")
	edit("kept.txt", "mine")
	os.Remove(d.Path("README.md"))
	edited := contents(t, d.Root())
	_, err := workspace.Init(d, opts)
	want := d.Root() + ": these files are there already and differ: terraform/main.tf, terraform/vars/nodes.yaml (try: k3lab init --force, which overwrites them)"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if diff := cmp.Diff(edited, contents(t, d.Root())); diff != "" {
		t.Errorf("a refused init changes (-was +is):\n%s", diff)
	}
	opts.Force = true
	if diff := cmp.Diff([]string{"README.md", "terraform/main.tf", "terraform/vars/nodes.yaml"}, mustInit(t, d, opts).Files); diff != "" {
		t.Errorf("files written with force (-want +got):\n%s", diff)
	}
	made["kept.txt"], made[".sops.yaml"] = "mine", edited[".sops.yaml"]
	if diff := cmp.Diff(made, contents(t, d.Root())); diff != "" {
		t.Errorf("after force (-want +got):\n%s", diff)
	}
}

func TestInitKeepsSecrets(t *testing.T) {
	user(t)
	d := at(t, t.TempDir())
	opts := workspace.Options{Example: "single", LabName: "home"}
	mustInit(t, d, opts)
	get := func(path ...string) string {
		t.Helper()
		store, err := secrets.Open(d.Root())
		if err != nil {
			t.Fatal(err)
		}
		v, err := store.Get(path...)
		if err != nil {
			t.Fatal(err)
		}
		return v.Reveal()
	}
	token := get("k3s_token")
	if len(token) != 64 {
		t.Errorf("token %q, want 64 hex digits", token)
	}
	opts.Force, opts.Sandbox = true, sandbox(1, "198.18.4.0/24")
	mustInit(t, d, opts)
	if got := get("k3s_token"); got != token {
		t.Errorf("the token is another one")
	}
	if got := get("proxmox_api_tokens", "sandbox"); got != opts.Sandbox.Token {
		t.Errorf("API token %q", got)
	}
	if text := contents(t, d.Root())[".envrc"]; !strings.Contains(text, `k3lab -C "${PWD}" env`) {
		t.Errorf(".envrc does not ask k3lab: %s", text)
	}
	for path, text := range contents(t, d.Root()) {
		if strings.Contains(text, token) || strings.Contains(text, opts.Sandbox.Token) {
			t.Errorf("%s holds a secret in plain text", path)
		}
	}
}

// TestInitRefuses: with a wrong option nothing is written.
func TestInitRefuses(t *testing.T) {
	tests := map[string]struct {
		opts workspace.Options
		want string
	}{
		"example": {workspace.Options{Example: "big", LabName: "home"},
			"big: there is no example of that name (try: one of single, small, ha, metal)"},
		"lab name": {workspace.Options{Example: "single", LabName: "My Lab\nx: 1"},
			`"My Lab\nx: 1" cannot be a lab's name`},
		"public key": {workspace.Options{Example: "single", LabName: "home", PublicKeys: []string{"-----BEGIN OPENSSH PRIVATE KEY-----\n"}},
			"ansible/group_vars/all.yaml:"},
		"narrow sandbox": {workspace.Options{Example: "single", LabName: "home", Sandbox: sandbox(1, "198.18.4.0/26")},
			"198.18.4.0/26: the examples need 256 addresses (try: k3lab sandbox up --cidr with a /24)"},
		"empty sandbox": {workspace.Options{Example: "single", LabName: "home", Sandbox: sandbox(0, "198.18.4.0/24")},
			"sandbox: it has no hypervisor (try: k3lab sandbox status)"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			user(t)
			d := at(t, filepath.Join(t.TempDir(), "lab"))
			_, err := workspace.Init(d, tt.opts)
			if err == nil || !strings.Contains(err.Error(), tt.want) || fault.KindOf(err) != fault.Invalid {
				t.Errorf("kind %d: got  %v\nwant %s", fault.KindOf(err), err, tt.want)
			}
			if _, err := os.Stat(d.Root()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("something was written: %v", contents(t, d.Root()))
			}
		})
	}
}

// TestAwkwardNamesAndKeys: what the user gives arrives in the Lab as it is.
func TestAwkwardNamesAndKeys(t *testing.T) {
	keys := []string{publicKey + ` me: "at" home # pc`, publicKey + " it's {mine}, & *", publicKey}
	for _, name := range []string{"no", "012", "1e3", "home-2"} {
		t.Run(name, func(t *testing.T) {
			user(t)
			d := at(t, t.TempDir())
			mustInit(t, d, workspace.Options{Example: "single", LabName: name,
				PublicKeys: []string{keys[0] + "\n\n# another\n" + keys[1] + "\r\n", keys[2]}})
			lab, _ := config.Load(d.Root())
			if diff := cmp.Diff(name, lab.Name); diff != "" {
				t.Errorf("name (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(keys, lab.Access.PublicKeys); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		})
	}
}

func TestInitGit(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed")
	}
	run := func(dir string, args ...string) string {
		t.Helper()
		out, err := exec.Command(git, append([]string{"-C", dir}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	opts := workspace.Options{Example: "single", LabName: "home"}

	t.Run("what git sees", func(t *testing.T) {
		user(t)
		d := at(t, t.TempDir())
		files := mustInit(t, d, opts).Files
		for _, path := range []string{".k3lab/ssh/id_ed25519", "terraform/.terraform/x", "terraform/terraform.tfstate",
			"terraform/terraform.tfstate.backup", "terraform/crash.log", "ansible/inventory/hosts.ini"} {
			if err := errors.Join(os.MkdirAll(filepath.Dir(d.Path(path)), 0o755), os.WriteFile(d.Path(path), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		got := strings.Fields(run(d.Root(), "ls-files", "--others", "--exclude-standard"))
		if diff := cmp.Diff(files, got); diff != "" {
			t.Errorf("untracked files (-written +seen):\n%s", diff)
		}
		if out, err := exec.Command(git, "-C", d.Root(), "rev-parse", "HEAD").CombinedOutput(); err == nil {
			t.Errorf("there is a commit: %s", out)
		}
	})
	t.Run("in a repository of the user's", func(t *testing.T) {
		user(t)
		outer := t.TempDir()
		run(outer, "init", "--quiet")
		d := at(t, filepath.Join(outer, "labs", "home"))
		mustInit(t, d, opts)
		if _, err := os.Stat(d.Path(".git")); err == nil {
			t.Error("a repository was made within a repository")
		}
	})
	t.Run("in a folder another repository ignores", func(t *testing.T) {
		user(t)
		outer := t.TempDir()
		run(outer, "init", "--quiet")
		if err := os.WriteFile(filepath.Join(outer, ".gitignore"), []byte("/build/\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		d := at(t, filepath.Join(outer, "build", "demo"))
		mustInit(t, d, opts)
		if _, err := os.Stat(d.Path(".git")); err != nil {
			t.Error("no repository was made")
		}
	})
	t.Run("without git", func(t *testing.T) {
		user(t)
		t.Setenv("PATH", t.TempDir())
		d := at(t, t.TempDir())
		notices := mustInit(t, d, opts).Notices
		if len(notices) != 2 || notices[1] != "git is not installed, so this is no git repository yet." {
			t.Errorf("notices: %q", notices)
		}
	})
}
