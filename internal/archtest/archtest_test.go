// Package archtest holds the rules the shape of the project must keep: who may
// import whom, and how long a file may be.
package archtest

import (
	"bufio"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/k3lab/k3lab/"

// tiers lists our packages from top to bottom. A package imports only from
// tiers below its own; base packages import each other, fault nothing.
var tiers = [][]string{
	{"cmd/k3lab", "cmd/k3lab-converger"},
	{"internal/cli"},
	{"internal/op"},
	{"internal/infra", "internal/desired", "internal/fleet", "internal/cluster", "internal/apps", "internal/sandbox", "internal/tfprovider", "internal/workspace", "internal/existing"},
	{"internal/sshkey"},
	{"internal/remote", "internal/pve", "internal/converger", "internal/secrets", "internal/release", "internal/kube"},
	{"internal/step", "internal/report", "internal/config", "internal/fault"},
}

// bans are imports outside the tiers that a package must not have, with the reason.
var bans = []struct{ importer, imported, reason, except string }{
	{"internal/converger", "github.com/", "the converger is a small static binary: standard library and x/sys only", ""},
	{"internal/converger", "k8s.io/", "the converger knows nothing of Kubernetes", ""},
	{"internal/sandbox", module + "internal/pve", "the simulator must not share mistakes with the client it tests", ""},
	{"internal/fault", module, "fault is the base of everything", ""},
	{"internal/desired", module + "internal/remote", "desired state is a pure function", ""},
	{"internal/cli", module + "internal/sandbox", "cli only turns flags into an operation's options", ""},
	{"internal/config", "github.com/hashicorp/terraform-exec", "settings are read without running anything", ""},
	{"internal/", "helm.sh/", "only package apps imports Helm", "internal/apps"},
	{"internal/", "github.com/k3lab/k3lab/standin", "nothing outside the sandbox may know of the stand-in", ""},
}

func TestImportDirection(t *testing.T) {
	for file, imports := range sources(t) {
		pkg := filepath.ToSlash(filepath.Dir(file))
		from := tier(pkg)
		for _, imp := range imports {
			for _, b := range bans {
				if pkg == b.except {
					continue
				}
				if strings.HasPrefix(pkg+"/", b.importer) && strings.HasPrefix(imp, b.imported) {
					t.Errorf("%s imports %s: %s", file, imp, b.reason)
				}
			}
			to := tier(strings.TrimPrefix(imp, module))
			if from < 0 || to < 0 || !strings.HasPrefix(imp, module) || within(pkg, strings.TrimPrefix(imp, module)) {
				continue
			}
			if to < from || (to == from && from != len(tiers)-1) {
				t.Errorf("%s imports %s: imports point down, never sideways", file, imp)
			}
		}
	}
}

// TestFileLength keeps every file readable in one sitting.
func TestFileLength(t *testing.T) {
	const limit = 400
	for file := range sources(t) {
		f, err := os.Open(filepath.Join("../..", file))
		if err != nil {
			t.Fatal(err)
		}
		lines := 0
		for s := bufio.NewScanner(f); s.Scan(); {
			lines++
		}
		f.Close()
		if lines > limit {
			t.Errorf("%s has %d lines, more than %d", file, lines, limit)
		}
	}
}

// within reports whether two packages belong to the same feature, as sandbox
// and its own sub-packages do.
func within(a, b string) bool {
	return strings.HasPrefix(a+"/", b+"/") || strings.HasPrefix(b+"/", a+"/") ||
		(strings.HasPrefix(a, "internal/sandbox/") && strings.HasPrefix(b, "internal/sandbox/"))
}

func tier(pkg string) int {
	for i, names := range tiers {
		for _, name := range names {
			if pkg == name || strings.HasPrefix(pkg, name+"/") {
				return i
			}
		}
	}
	return -1
}

// sources maps every production Go file of the root module to its imports.
func sources(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	root := "../.."
	for _, dir := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			out[rel] = []string{}
			for _, s := range f.Imports {
				imp, err := strconv.Unquote(s.Path.Value)
				if err != nil {
					return err
				}
				out[rel] = append(out[rel], imp)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(out) == 0 {
		t.Fatal("no source found: the test looks in the wrong place")
	}
	return out
}
