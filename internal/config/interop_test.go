package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// reader is a program that reads the settings besides k3lab. It returns the
// content of the files, by file name, as JSON would have it.
type reader struct {
	program string
	read    func(t *testing.T, files map[string][]byte) map[string]any
}

func readers() []reader {
	return []reader{{"terraform", readByTerraform}, {"ansible-inventory", readByAnsible}}
}

// run starts a program that must be installed, and skips the test where it is not.
func run(t *testing.T, dir, stdin, program string, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed: nothing to compare with", program)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "CHECKPOINT_DISABLE=1", "TF_CLI_CONFIG_FILE=/dev/null", "ANSIBLE_LOCAL_TEMP="+dir, "ANSIBLE_HOME="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", program, err, out, stderr.Bytes())
	}
	return out
}

func decodeJSON(t *testing.T, text []byte) map[string]any {
	t.Helper()
	out := map[string]any{}
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return out
}

func writeAll(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, src := range files {
		if err := os.WriteFile(filepath.Join(dir, name), src, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func readByTerraform(t *testing.T, files map[string][]byte) map[string]any {
	dir := t.TempDir()
	writeAll(t, dir, files)
	out := run(t, dir, `jsonencode({ for f in fileset(path.module, "*.yaml") : f => jsonencode(try(yamldecode(file(f)), {})) })`, "terraform", "console")
	var text string
	if err := json.Unmarshal(bytes.TrimSpace(out), &text); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	all := map[string]any{}
	for name, file := range decodeJSON(t, []byte(text)) {
		all[name] = decodeJSON(t, []byte(file.(string)))
	}
	return all
}

// readByAnsible has each file read as the group variables of a group of its own.
func readByAnsible(t *testing.T, files map[string][]byte) map[string]any {
	dir := t.TempDir()
	groups := map[string][]byte{}
	inventory := ""
	for name, src := range files {
		group := "group_" + strings.TrimSuffix(name, ".yaml")
		groups[group+".yaml"] = src
		inventory += fmt.Sprintf("[%s]\nhost_%s\n", group, name)
	}
	writeAll(t, filepath.Join(dir, "group_vars"), groups)
	writeAll(t, dir, map[string][]byte{"hosts.ini": []byte(inventory)})
	out := decodeJSON(t, run(t, dir, "", "ansible-inventory", "-i", "hosts.ini", "--list"))
	vars := out["_meta"].(map[string]any)["hostvars"].(map[string]any)
	all := map[string]any{}
	for name := range files {
		all[name] = vars["host_"+name]
	}
	return all
}

// readByUs does what Load does before it looks at keys, through JSON.
func readByUs(t *testing.T, name string, src []byte) map[string]any {
	t.Helper()
	c := &checker{sources: newSources()}
	root := c.parse(name, src)
	if problems := (&Problems{list: sorted(c.problems)}); problems.Err() != nil || root == nil {
		t.Fatal(problems.Error())
	}
	text, err := json.Marshal(root.value())
	if err != nil {
		t.Fatal(err)
	}
	return decodeJSON(t, text)
}

// TestReadersAgree: one set of files, three readers, one result.
func TestReadersAgree(t *testing.T) {
	files := map[string][]byte{}
	ours := map[string]any{}
	for _, name := range []string{"nodes.yaml", "network.yaml", "proxmox.yaml", "all.yaml"} {
		src, err := os.ReadFile(filepath.Join("testdata/interop", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = src
		ours[name] = readByUs(t, name, src)
	}
	if _, problems := load(workspace(t, "testdata/interop")); problems.Err() != nil {
		t.Error(problems.Text())
	}
	for _, r := range readers() {
		t.Run(r.program, func(t *testing.T) {
			if diff := cmp.Diff(ours, r.read(t, files)); diff != "" {
				t.Errorf("(-k3lab +%s):\n%s", r.program, diff)
			}
		})
	}
}

// TestScalarsAgree: of every plain scalar that is accepted, all readers make the
// same, and each one refused is read otherwise by somebody.
// testdata/scalars.txt lists them, one a line.
func TestScalarsAgree(t *testing.T) {
	list, err := os.ReadFile("testdata/scalars.txt")
	if err != nil {
		t.Fatal(err)
	}
	var src strings.Builder
	scalars, refused := map[string]string{}, map[string]bool{}
	ours := map[string]any{}
	for i, scalar := range strings.Split(strings.TrimSuffix(string(list), "\n"), "\n") {
		key := fmt.Sprintf("k%03d", i)
		scalars[key] = scalar
		k, why := classify(scalar)
		refused[key] = why != ""
		fmt.Fprintf(&src, "%s: %s\n", key, scalar)
		text, err := json.Marshal((&node{kind: k, text: scalar}).value())
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err := json.Unmarshal(text, &value); err != nil {
			t.Fatal(err)
		}
		ours[key] = value
	}
	differs, asked := map[string]bool{}, 0
	for _, r := range readers() {
		t.Run(r.program, func(t *testing.T) {
			theirs := r.read(t, map[string][]byte{"all.yaml": []byte(src.String())})["all.yaml"].(map[string]any)
			asked++
			for key, value := range ours {
				if cmp.Equal(value, theirs[key]) {
					continue
				}
				differs[key] = true
				if !refused[key] {
					t.Errorf("%s: k3lab reads %#v, %s %#v", scalars[key], value, r.program, theirs[key])
				}
			}
		})
	}
	for key, is := range refused {
		if is && !differs[key] && asked == len(readers()) {
			t.Errorf("%s is refused though all read it the same", scalars[key])
		}
	}
}

// TestUnreadable: what stops a reader altogether is refused.
func TestUnreadable(t *testing.T) {
	for _, scalar := range []string{"=", "<<", ".inf", "-.inf", "+.inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"} {
		if _, why := classify(scalar); why == "" {
			t.Errorf("%s is accepted", scalar)
		}
	}
}
