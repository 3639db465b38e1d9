package pveapi

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/fault"
)

func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// ignoreUptime leaves out what depends on the time of asking.
func ignoreUptime() cmp.Option {
	return cmp.FilterPath(func(p cmp.Path) bool { return strings.HasSuffix(p.GoString(), `["uptime"]`) }, cmp.Ignore())
}

// TestOpenRefuses: what cannot work is said at once, and names what to change.
func TestOpenRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"no state directory", func(o *Options) { o.StateDir = "" }, "sandbox: the Proxmox API simulator needs a state directory"},
		{"no hypervisor", func(o *Options) { o.Hypervisors = nil }, "sandbox: the Proxmox API simulator needs at least one hypervisor"},
		{"hypervisor twice", func(o *Options) { o.Hypervisors[1].Name = "pve1" }, `sandbox: hypervisor name "pve1" is empty or given twice`},
		{"no token", func(o *Options) { o.Token = Token{} }, "sandbox: the Proxmox API simulator needs an administrator's token"},
		{"power without disks", func(o *Options) { o.Power = NoMachines() }, "sandbox: power and disks of the machines come together"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := testOptions(t)
			tc.change(&o)
			_, err := Open(o)
			if err == nil || err.Error() != tc.want || fault.KindOf(err) != fault.Invalid {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

// TestBrokenState: a state nobody can read is left as it is.
func TestBrokenState(t *testing.T) {
	for _, text := range []string{"{", `{"version": 99}`} {
		o := testOptions(t)
		file := filepath.Join(o.StateDir, "state.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(o); err == nil || !strings.HasPrefix(err.Error(), file+": sandbox state: ") {
			t.Errorf("Open with state %s: %v", text, err)
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != text {
			t.Errorf("the file is %q now (%v)", b, err)
		}
	}
}

// TestUnwritableState: a change that cannot be kept is not answered as made.
func TestUnwritableState(t *testing.T) {
	o := testOptions(t)
	x := open(t, o)
	if err := os.RemoveAll(o.StateDir); err != nil {
		t.Fatal(err)
	}
	r := x.send("POST", "/pools", map[string]string{"poolid": "lab"})
	if want := "unable to write " + filepath.Join(o.StateDir, "state.json"); r.code != 500 || !strings.HasPrefix(r.reason, want) {
		t.Errorf("%d %q, want 500 %q…", r.code, r.reason, want)
	}
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	x.ok("POST", "/pools", map[string]string{"poolid": "other"})
}

// TestCertificates: they stay the same over a restart, and the keys are private.
func TestCertificates(t *testing.T) {
	o := testOptions(t)
	var prints []string
	for range 2 {
		s, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		prints = append(prints, s.certs.fingerprint())
		s.Close()
	}
	if prints[0] != prints[1] {
		t.Errorf("the certificate changed from %s to %s", prints[0], prints[1])
	}
	for _, name := range []string{"api-key.pem", "state.json"} {
		fi, err := os.Stat(filepath.Join(o.StateDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, fi.Mode().Perm())
		}
	}
}
