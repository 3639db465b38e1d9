package converger

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// asModule runs the converger as Ansible does, with a file or standard input, and
// returns what it answers and its exit code.
func asModule(t *testing.T, f *fakeMachine, arguments string, viaFile bool) (map[string]any, int) {
	t.Helper()
	path, stdin := "-", arguments
	if viaFile {
		path, stdin = filepath.Join(t.TempDir(), "args.json"), ""
		if err := os.WriteFile(path, []byte(arguments), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	code := 0
	if err := command(t.Context(), f.converger(), []string{path}, strings.NewReader(stdin), json.NewEncoder(&out), &out); err != nil {
		code = 1
	}
	var answer map[string]any
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	return answer, code
}

func arguments(t *testing.T, q Request, check, diff bool) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"request": q, "_ansible_check_mode": check, "_ansible_diff": diff, "_ansible_verbosity": 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// parsed is a JSON text as asModule returns it.
func parsed(t *testing.T, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func of(tag string, r Resource) Resource {
	r.Tags = []string{tag}
	return r
}

func runningK3s(f *fakeMachine) {
	f.change(func(s *fakeState) {
		s.Units["k3s.service"] = &fakeUnit{Load: "loaded", Active: "active", Sub: "running", File: "enabled", Uses: map[string]string{}}
	})
}

func TestModule(t *testing.T) {
	const content = "binary"
	config := of("k3s", file("/etc/k3s/config.yaml", "new\n"))
	k3s := of("k3s", unit("k3s.service", "file /etc/k3s/config.yaml", "file /etc/audit"))
	audit := of("hardening", file("/etc/audit", "policy\n"))
	binary := of("k3s", Resource{Binary: &Binary{Path: "/bin/k3s", SHA256: sum(content), Source: "/cache/k3s", Version: "v1"}})
	installed := `{"resource": "binary /bin/k3s", "action": "install", "detail": "v1 (SHA-256 ` + sum(content)[:12] + `…)", "made": true}`
	tests := []struct {
		name        string
		machine     func(t *testing.T, f *fakeMachine)
		request     Request
		check, diff bool
		want        string
		code        int
		remains     []string // of the plan afterwards
	}{
		{name: "nothing to change", machine: func(t *testing.T, f *fakeMachine) { f.write(t, "/a", "a") },
			request: Request{State: State{Resources: []Resource{file("/a", "a")}}}, diff: true,
			want: `{"changed": false, "changes": []}`},
		{name: "a change is made", machine: func(t *testing.T, f *fakeMachine) { f.write(t, "/a", "old\n") },
			request: Request{State: State{Resources: []Resource{file("/a", "new\n")}}},
			want: `{"changed": true, "changes": [{"resource": "file /a", "action": "update", "detail": "content",
				"before": "old\n", "after": "new\n", "made": true}]}`},
		{name: "check mode makes none and shows texts and lines", diff: true, check: true,
			machine: func(t *testing.T, f *fakeMachine) { f.write(t, "/b", "old\n") },
			request: Request{State: State{Resources: []Resource{
				{Directory: &Directory{Path: "/dir", Mode: 0o700}}, file("/a", "new\n"), file("/b", "new\n"),
			}}},
			want: `{"changed": true, "changes": [
				{"resource": "directory /dir", "action": "create", "detail": "mode 0700", "made": false},
				{"resource": "file /a", "action": "create", "detail": "mode 0644", "after": "new\n", "made": false},
				{"resource": "file /b", "action": "update", "detail": "content", "before": "old\n", "after": "new\n", "made": false}],
				"diff": [{"prepared": "create directory /dir: mode 0700\n"},
				{"before": "", "after": "new\n", "before_header": "create file /a: mode 0644", "after_header": "create file /a: mode 0644"},
				{"before": "old\n", "after": "new\n", "before_header": "update file /b: content", "after_header": "update file /b: content"}]}`,
			remains: []string{"create directory /dir", "create file /a", "update file /b"}},
		{name: "lines of ours are shown among the others", diff: true, machine: func(t *testing.T, f *fakeMachine) { f.write(t, "/a", "theirs\n") },
			request: Request{State: State{Resources: []Resource{{Block: &Block{Path: "/a", Lines: []string{"ours"}, Mode: 0o644}}}}},
			want: `{"changed": true, "changes": [{"resource": "block /a", "action": "update", "detail": "our lines", "made": true,
				"before": "theirs\n", "after": "theirs\n` + blockBegin + `\nours\n# END k3lab\n"}],
				"diff": [{"before": "theirs\n", "after": "theirs\n` + blockBegin + `\nours\n# END k3lab\n",
				"before_header": "update block /a: our lines", "after_header": "update block /a: our lines"}]}`},
		{name: "a link is shown in a line", diff: true,
			machine: func(t *testing.T, f *fakeMachine) {
				if err := os.Symlink("old", filepath.Join(f.root, "a")); err != nil {
					t.Fatal(err)
				}
			},
			request: Request{State: State{Resources: []Resource{{Link: &Link{Path: "/a", Target: "/new"}}}}},
			want: `{"changed": true, "changes": [{"resource": "link /a", "action": "update", "detail": "old → /new", "made": true}],
				"diff": [{"prepared": "update link /a: old → /new\n"}]}`},
		{name: "a secret is not shown", diff: true, machine: func(t *testing.T, f *fakeMachine) { f.write(t, "/a", "old secret") },
			request: Request{State: State{Resources: []Resource{{File: &File{Path: "/a", Content: "new secret", Mode: 0o644, Secret: true}}}}},
			want: `{"changed": true, "changes": [{"resource": "file /a", "action": "update", "detail": "secret content", "made": true}],
				"diff": [{"prepared": "update file /a: secret content\n"}]}`},
		{name: "what fails is told beside what is made", machine: func(t *testing.T, f *fakeMachine) { f.write(t, "/dir/x", "") },
			request: Request{State: State{Resources: []Resource{file("/dir", "x"), file("/b", "b")}}},
			want: `{"changed": true, "failed": true, "msg": "file /dir: is a directory",
				"changes": [{"resource": "file /b", "action": "create", "detail": "mode 0644", "after": "b", "made": true}]}`, code: 1,
			remains: []string{" file /dir"}},
		{name: "a held unit is told of", machine: func(t *testing.T, f *fakeMachine) { runningK3s(f) },
			request: Request{State: State{Resources: []Resource{config, k3s}}, Tags: []string{"k3s"}, Hold: []string{"unit k3s.service"}},
			want: `{"changed": true, "changes": [{"resource": "file /etc/k3s/config.yaml", "action": "create", "detail": "mode 0644", "after": "new\n", "made": true}],
				"held": [{"resource": "unit k3s.service", "action": "restart", "detail": "what changed in an earlier run that was interrupted is not in use yet", "made": false}]}`,
			remains: []string{"restart unit k3s.service"}},
		{name: "a held unit is told of in check mode", check: true, machine: func(t *testing.T, f *fakeMachine) { runningK3s(f) },
			request: Request{State: State{Resources: []Resource{config, k3s}}, Tags: []string{"k3s"}, Hold: []string{"unit k3s.service"}},
			want: `{"changed": true, "changes": [{"resource": "file /etc/k3s/config.yaml", "action": "create", "detail": "mode 0644", "after": "new\n", "made": false}],
				"held": [{"resource": "unit k3s.service", "action": "restart", "detail": "because file /etc/k3s/config.yaml changes", "made": false}]}`,
			remains: []string{"create file /etc/k3s/config.yaml", "restart unit k3s.service"}},
		{name: "one resource of a plan alone", check: true, machine: func(t *testing.T, f *fakeMachine) { runningK3s(f) },
			request: Request{State: State{Resources: []Resource{config, k3s}}, Tags: []string{"k3s"}, Only: []string{"unit k3s.service"}},
			want: `{"changed": true, "changes": [
				{"resource": "unit k3s.service", "action": "restart", "detail": "because file /etc/k3s/config.yaml changes", "made": false}]}`,
			remains: []string{"create file /etc/k3s/config.yaml", "restart unit k3s.service"}},
		{name: "check mode counts on the tags before", check: true, machine: func(t *testing.T, f *fakeMachine) { runningK3s(f) },
			request: Request{State: State{Resources: []Resource{audit, k3s}}, Tags: []string{"k3s"}, Before: []string{"os", "hardening"}},
			want: `{"changed": true, "changes": [
				{"resource": "unit k3s.service", "action": "restart", "detail": "because file /etc/audit changes", "made": false}]}`,
			remains: []string{"create file /etc/audit", "restart unit k3s.service"}},
		{name: "check mode does not count on tags that are not run", check: true, machine: func(t *testing.T, f *fakeMachine) { runningK3s(f) },
			request: Request{State: State{Resources: []Resource{audit, k3s}}, Tags: []string{"k3s"}},
			want:    `{"changed": false, "changes": []}`, remains: []string{"create file /etc/audit", "restart unit k3s.service"}},
		{name: "nothing is made as long as a binary's content is missing",
			request: Request{State: State{Resources: []Resource{config, binary}}, Tags: []string{"k3s"}},
			want:    `{"changed": false, "changes": [], "missing": ["/cache/k3s"]}`, remains: []string{"create file /etc/k3s/config.yaml", "install binary /bin/k3s"}},
		{name: "another content in its place is none", machine: func(t *testing.T, f *fakeMachine) { f.write(t, "/cache/k3s", "half") },
			request: Request{State: State{Resources: []Resource{binary}}},
			want:    `{"changed": false, "changes": [], "missing": ["/cache/k3s"]}`, remains: []string{"install binary /bin/k3s"}},
		{name: "its content is there", machine: func(t *testing.T, f *fakeMachine) { f.write(t, "/cache/k3s", content) },
			request: Request{State: State{Resources: []Resource{binary}}},
			want:    `{"changed": true, "changes": [` + installed + `]}`},
		{name: "a binary of another tag is nobody's concern",
			request: Request{State: State{Resources: []Resource{audit, binary}}, Tags: []string{"hardening"}},
			want:    `{"changed": true, "changes": [{"resource": "file /etc/audit", "action": "create", "detail": "mode 0644", "after": "policy\n", "made": true}]}`,
			remains: []string{"install binary /bin/k3s"}},
		{name: "a state that cannot be", request: Request{State: State{Resources: []Resource{file("relative", "")}}},
			want: `{"changed": false, "failed": true, "changes": [], "msg": "file relative: \"relative\" is no absolute, clean path"}`, code: 1},
	}
	for _, test := range tests {
		for _, viaFile := range []bool{false, true} {
			t.Run(test.name, func(t *testing.T) {
				f := newFakeMachine(t)
				if test.machine != nil {
					test.machine(t, f)
				}
				got, code := asModule(t, f, arguments(t, test.request, test.check, test.diff), viaFile)
				if d := cmp.Diff(parsed(t, test.want), got); d != "" || code != test.code {
					t.Errorf("exit code %d, want %d, answer (-want +got):\n%s", code, test.code, d)
				}
				if test.code == 1 && test.remains == nil {
					return
				}
				var left []string
				_ = f.converger().Plan(t.Context(), Request{State: test.request.State}, func(c Change) { left = append(left, c.Action+" "+c.Resource) })
				if d := cmp.Diff(test.remains, left); d != "" {
					t.Errorf("left to do (-want +got):\n%s", d)
				}
			})
		}
	}
}

func TestModuleRefusesWhatItDoesNotKnow(t *testing.T) {
	tests := map[string]struct{ arguments, want string }{
		"no JSON":                {`{`, "arguments: unexpected end of JSON input"},
		"no request":             {`{"_ansible_check_mode": false}`, "arguments: request is missing"},
		"an unknown kind":        {`{"request": {"state": {"resources": [{"frobnicate": {}}]}}}`, `request: json: unknown field "frobnicate"`},
		"an unknown request":     {`{"request": {"stat": {}}}`, `request: json: unknown field "stat"`},
		"nothing of a resource":  {`{"request": {"state": {"resources": [{}]}}}`, "resource 0 says nothing this converger knows"},
		"a request that is none": {`{"request": 3}`, "request: json: cannot unmarshal number into Go value of type converger.Request"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, code := asModule(t, newFakeMachine(t), test.arguments, false)
			want := map[string]any{"changed": false, "failed": true, "changes": []any{}, "msg": test.want}
			if d := cmp.Diff(want, got); d != "" || code != 1 {
				t.Errorf("exit code %d, answer (-want +got):\n%s", code, d)
			}
		})
	}
	if _, err := os.Stat("/nonexistent.json"); err == nil {
		t.Skip("there is such a file")
	}
	var out bytes.Buffer
	if code := Main(t.Context(), []string{"/nonexistent.json"}, strings.NewReader(""), &out, &out); code != 1 ||
		!strings.Contains(out.String(), `"msg":"open /nonexistent.json: no such file or directory"`) {
		t.Errorf("exit code %d: %s", code, out.String())
	}
}

// TestPartsTendWhatIsKept: a setting that nobody wants any more goes with the
// first part of a run that is about such settings, and with no other.
func TestPartsTendWhatIsKept(t *testing.T) {
	wanted := of("os", Resource{Sysctl: &Sysctl{Key: "net.ipv4.ip_forward", Value: "1"}})
	also := of("hardening", Resource{Sysctl: &Sysctl{Key: "vm.overcommit_memory", Value: "1"}})
	once := of("os", Resource{Sysctl: &Sysctl{Key: "vm.swappiness", Value: "1"}})
	tests := map[string]struct {
		tags, before []string
		want         bool
	}{
		"all":                       {nil, nil, true},
		"its tag":                   {[]string{"os"}, nil, true},
		"another with such":         {[]string{"hardening"}, nil, true},
		"another after the first":   {[]string{"hardening"}, []string{"os"}, false},
		"one without such settings": {[]string{"k3s"}, nil, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFakeMachine(t)
			f.write(t, "/proc/sys/vm/swappiness", "60\n")
			apply(t, f.converger(), Request{State: State{Resources: []Resource{wanted, once}}})
			got := false
			q := Request{State: State{Resources: []Resource{wanted, also, of("k3s", file("/x", ""))}}, Tags: test.tags, Before: test.before}
			if err := f.converger().Plan(t.Context(), q, func(c Change) { got = got || c.Resource == "sysctl vm.swappiness" }); err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("it goes: %v, want %v", got, test.want)
			}
		})
	}
}
