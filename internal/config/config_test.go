package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/fault"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with the file, or writes the file.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// workspace lays the flat files of the directories over each other and returns a
// reader for load. A file that is named NAME.absent is left out.
func workspace(t *testing.T, dirs ...string) func(string) ([]byte, error) {
	t.Helper()
	return func(file string) ([]byte, error) {
		name := filepath.Base(file)
		for i := len(dirs) - 1; i >= 0; i-- {
			if _, err := os.Stat(filepath.Join(dirs[i], name+".absent")); err == nil {
				return nil, os.ErrNotExist
			}
			src, err := os.ReadFile(filepath.Join(dirs[i], name))
			if err == nil {
				return src, nil
			}
			if !os.IsNotExist(err) {
				return nil, err
			}
		}
		return nil, os.ErrNotExist
	}
}

// TestRules walks testdata/rules: one directory per rule, in it one per case. A
// case holds the files in which it differs from testdata/base, and what Load
// says. Its name says what must come of it: valid*, warning* or invalid*.
func TestRules(t *testing.T) {
	cases, err := filepath.Glob("testdata/rules/*/*")
	if err != nil || len(cases) == 0 {
		t.Fatal("no case found", err)
	}
	sides := map[string][2]bool{} // of each rule: has it a valid case, and another
	for _, dir := range cases {
		side := sides[filepath.Dir(dir)]
		valid := strings.HasPrefix(filepath.Base(dir), "valid")
		sides[filepath.Dir(dir)] = [2]bool{side[0] || valid, side[1] || !valid}
		t.Run(strings.TrimPrefix(dir, "testdata/rules/"), func(t *testing.T) {
			_, problems := load(workspace(t, "testdata/base", dir))
			golden(t, filepath.Join(dir, "want.txt"), text(problems))
			verdict(t, filepath.Base(dir), problems)
		})
	}
	for rule, side := range sides {
		if side != [2]bool{true, true} {
			t.Errorf("%s wants a valid case and one that is not", rule)
		}
	}
}

func text(p *Problems) string {
	if s := p.Text(); s != "" {
		return s + "\n"
	}
	return ""
}

// verdict holds a case to its name, whatever -update has written.
func verdict(t *testing.T, name string, p *Problems) {
	t.Helper()
	errors, warnings := len(p.Errors()), len(p.Warnings())
	switch {
	case strings.HasPrefix(name, "invalid"):
		if errors == 0 || fault.KindOf(p.Err()) != fault.Invalid {
			t.Errorf("%d errors, kind %d: want it refused as invalid", errors, fault.KindOf(p.Err()))
		}
	case strings.HasPrefix(name, "warning"):
		if errors != 0 || warnings == 0 || p.Err() != nil {
			t.Errorf("%s: want warnings alone", p.Summary())
		}
	case strings.HasPrefix(name, "valid"):
		if errors != 0 || warnings != 0 {
			t.Errorf("%s: want none", p.Summary())
		}
	default:
		t.Errorf("a case is called valid*, warning* or invalid*")
	}
}
