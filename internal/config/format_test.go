package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/fault"
)

// fileNamed returns the settings file with that base name.
func fileNamed(t *testing.T, base string) string {
	t.Helper()
	for _, file := range Files {
		if filepath.Base(file) == base {
			return file
		}
	}
	t.Fatalf("%s is no settings file", base)
	return ""
}

// TestFormat walks testdata/format: NAME.in.yaml becomes NAME.out.yaml, and
// NAME.txt says what was rewritten.
func TestFormat(t *testing.T) {
	inputs, err := filepath.Glob("testdata/format/*/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatal("no case found", err)
	}
	for _, input := range inputs {
		base := strings.TrimSuffix(input, ".in.yaml")
		t.Run(strings.TrimPrefix(base, "testdata/format/"), func(t *testing.T) {
			src, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			file := fileNamed(t, filepath.Base(base)+".yaml")
			out, rewrites, err := Format(file, src)
			if err != nil {
				t.Fatal(err)
			}
			var lines strings.Builder
			for _, r := range rewrites {
				lines.WriteString(r.String() + "\n")
			}
			golden(t, base+".out.yaml", string(out))
			golden(t, base+".txt", lines.String())
			if stays := strings.Contains(base, "/nothing/") || strings.Contains(base, "/doubtful/"); stays != bytes.Equal(src, out) {
				t.Error("changed:", !stays)
			}
			again, more, err := Format(file, out)
			if err != nil || len(more) != 0 || !bytes.Equal(out, again) {
				t.Errorf("formatted twice: %v %v %s", err, more, cmp.Diff(string(out), string(again)))
			}
		})
	}
}

func TestFormatRefuses(t *testing.T) {
	tests := map[string]struct {
		file, src string
		kind      fault.Kind
		want      string
	}{
		"no settings file": {"README.md", "x: 1", fault.Failed, "README.md: it is not a settings file"},
		"no YAML": {nodesFile, "machines: {", fault.Invalid, `terraform/vars/nodes.yaml:1:11: error: not valid YAML: could not find flow mapping end token '}'
    1 | machines: {
      |           ^
      = look for a missing quote, bracket, colon, or space after a colon, here or in the line above

1 error`},
		"one value for two settings": {nodesFile, "machines:\n  a: {ram: &r 8, cpu: *r}\n", fault.Failed,
			"terraform/vars/nodes.yaml: ram: 8 cannot be rewritten without changing more (try: write memory_mib: 8192 by hand, then k3lab fmt)"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			out, rewrites, err := Format(tt.file, []byte(tt.src))
			if err == nil {
				t.Fatalf("no error; %q %v", out, rewrites)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" || fault.KindOf(err) != tt.kind {
				t.Errorf("kind %d, (-want +got):\n%s", fault.KindOf(err), diff)
			}
		})
	}
}
