package config

import (
	"bytes"
	"fmt"
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
		if _, known := lab.Endpoint(h.Endpoint); !ok || !known || m.VMID == 0 || !m.Adopted && m.TemplateVMID == 0 && h.TemplateVMID == 0 {
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
		strings.Repeat("[", 99), strings.Repeat("{a: ", 99), strings.Repeat("- ", 99), strings.Repeat("? ", 99),
		strings.Repeat("&a ", 99), strings.Repeat("!x ", 99), "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]",
		bomb(),
	} {
		f.Add([]byte(odd), []byte(odd), []byte(odd), []byte(odd))
	}
}

// TestBounds: what would take a parser hours or its whole stack is refused.
func TestBounds(t *testing.T) {
	tests := map[string]struct{ src, want string }{
		"deep flow":   {strings.Repeat("[", 25000), nodesFile + ":1:65: not valid YAML: nested too deeply"},
		"deep maps":   {strings.Repeat("{a: ", 7000), nodesFile + ":1:257: not valid YAML: nested too deeply"},
		"deep blocks": {strings.Repeat("- ", 25000), nodesFile + ":1:129: not valid YAML: nested too deeply"},
		"anchors":     {strings.Repeat("&a ", 9000), nodesFile + ":1:193: not valid YAML: nested too deeply"},
		"too long":    {strings.Repeat("a: b\n", 11000), nodesFile + ":10001:1: not valid YAML: too long to be settings"},
		"too large":   {strings.Repeat("#", maxFileBytes+1), nodesFile + ": the file is larger than 256 KiB"},
		"aliases":     {bomb(), nodesFile + ":4:7: the file grows beyond all bounds"},
		"not UTF-8":   {"a: \xff", nodesFile + ": the file is not UTF-8 text"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := &checker{sources: newSources()}
			c.parse(nodesFile, []byte(tt.src))
			list := sorted(c.problems)
			if len(list) == 0 {
				t.Fatal("accepted")
			}
			if got := list[0].Position.String() + ": " + list[0].Message; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// bomb is a small file that aliases blow up.
func bomb() string {
	var b strings.Builder
	b.WriteString("a: &a {x: z}\n")
	for c := 'b'; c < 'k'; c++ {
		fmt.Fprintf(&b, "%c: &%c [%s]\n", c, c, strings.Repeat(fmt.Sprintf("*%c,", c-1), 20))
	}
	return b.String()
}
