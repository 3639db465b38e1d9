package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/k3lab/k3lab/internal/fault"
)

// FuzzLoad: no input makes Load or Format panic or hang, every problem stands
// where there is something to see, and what is accepted keeps the promises the
// other packages build on.
func FuzzLoad(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, nodes, network, proxmox, platform []byte) {
		files := map[string][]byte{nodesFile: nodes, networkFile: network, proxmoxFile: proxmox, platformFile: platform}
		lab, problems := load(func(file string) ([]byte, error) { return files[file], nil })
		for _, p := range append(problems.Errors(), problems.Warnings()...) {
			if p.Line > 0 && (p.Line > bytes.Count(files[p.File], []byte("\n"))+1 || p.Column < 1) || p.Message == "" || p.String() == "" {
				t.Errorf("nothing to see at %s: %s", p.Position, p.Message)
			}
		}
		if err := problems.Err(); err == nil {
			promises(t, lab)
		} else if fault.KindOf(err) != fault.Invalid {
			t.Errorf("kind %d", fault.KindOf(err))
		}
		for file, src := range files {
			formatted(t, file, src)
		}
	})
}

func promises(t *testing.T, lab *Lab) {
	t.Helper()
	if len(lab.Servers()) == 0 || lab.Name == "" || lab.K3s.Version == "" || !lab.Network.CIDR.IsValid() {
		t.Error("accepted without a server, a name, a version or a network")
	}
	for _, m := range enabled(lab) {
		if m.Name == "" || m.Role == "" || !m.IP.IsValid() || m.Hypervisor == "" {
			t.Errorf("accepted: %+v", m)
		}
	}
	for _, m := range lab.VirtualMachines() {
		h, ok := lab.Proxmox.Hypervisors[m.Hypervisor]
		if _, known := lab.Endpoint(h.Endpoint); !ok || !known || m.VMID == 0 || m.TemplateVMID == 0 && h.TemplateVMID == 0 {
			t.Errorf("accepted: %+v on %+v", m, h)
		}
	}
}

func formatted(t *testing.T, file string, src []byte) {
	t.Helper()
	out, rewrites, err := Format(file, src)
	if err != nil {
		return
	}
	if len(rewrites) == 0 && !bytes.Equal(src, out) || bytes.Count(src, []byte("\n")) != bytes.Count(out, []byte("\n")) {
		t.Errorf("%q became %q with %v", src, out, rewrites)
	}
	again, more, err := Format(file, out)
	if err != nil || len(more) > 0 || !bytes.Equal(again, out) {
		t.Errorf("formatted twice: %q, %v, %v", again, more, err)
	}
}

// seed adds every fixture: those of the rules laid over the base, the layouts, and
// texts of a shape that parsers do not like.
func seed(f *testing.F) {
	f.Helper()
	read := func(path string) []byte {
		src, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			f.Fatal(err)
		}
		return src
	}
	dirs, err := filepath.Glob("testdata/rules/*/*")
	if err != nil || len(dirs) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, dir := range dirs {
		var files [4][]byte
		for i, file := range Files {
			files[i] = read(filepath.Join("testdata/base", filepath.Base(file)))
			if src := read(filepath.Join(dir, filepath.Base(file))); src != nil {
				files[i] = src
			}
		}
		f.Add(files[0], files[1], files[2], files[3])
	}
	layouts, err := filepath.Glob("testdata/layouts/*")
	if err != nil {
		f.Fatal(err)
	}
	for _, dir := range layouts {
		f.Add(read(filepath.Join(dir, nodesFile)), read(filepath.Join(dir, networkFile)), read(filepath.Join(dir, proxmoxFile)), read(filepath.Join(dir, platformFile)))
	}
	for _, odd := range []string{
		"", "\x00", "\xff\xfe", "\ufeff", "- - - -", "? a\n: b", "a: &a [*a]", "<<: x", "a: |\n  x\n b: y", "{a: [}", "---\n---\n...\n",
		"%YAML 1.1\n---\na: 1", "a: !!binary x", "? {a: b}\n: c", "? [a]\n: c", "*x : y", "&x : y", "a: \"\\x", "'", "a:\n\t b", "#", "a: >-\n\n\n", ": ", "- : -",
		strings.Repeat("[", 100000), strings.Repeat("{a: ", 50000), strings.Repeat("- ", 50000), strings.Repeat("? ", 50000),
		strings.Repeat("&a ", 50000), strings.Repeat("!x ", 50000), "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]",
		bomb(),
	} {
		f.Add([]byte(odd), []byte(odd), []byte(odd), []byte(odd))
	}
}

// bomb is a small file that aliases blow up.
func bomb() string {
	var b strings.Builder
	b.WriteString("l0: &l0 {a: b}\n")
	for i := 1; i < 20; i++ {
		alias := "*l" + string(rune('a'+i-1))
		if i == 1 {
			alias = "*l0"
		}
		b.WriteString("l: &l" + string(rune('a'+i)) + " [" + strings.Repeat(alias+",", 20) + "]\n")
	}
	return b.String()
}
