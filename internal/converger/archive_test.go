package converger

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestArchive: what was copied to the machine is moved to its place, verified, and
// not asked for again.
func TestArchive(t *testing.T) {
	const path, source = "/var/lib/images/k3lab-app.tar", "/var/lib/staged/app"
	state := func(content string) Request {
		return Request{State: State{Resources: []Resource{{Archive: &Archive{Path: path, Source: source, SHA256: sum(content), Size: 5 << 20}}}}}
	}
	detail := func(content string) string { return "5 MiB, SHA-256 " + sum(content)[:12] + "…" }
	tests := map[string]struct {
		files map[string]string
		want  []Change
		error string
		after map[string]string
	}{
		"it is new": {
			map[string]string{source: "images"},
			[]Change{{Resource: "archive " + path, Action: "install", Detail: detail("images")}}, "", map[string]string{path: "images"},
		},
		"it is there":       {map[string]string{path: "images"}, nil, "", map[string]string{path: "images"}},
		"there, and copied": {map[string]string{path: "images", source: "images"}, nil, "", map[string]string{path: "images", source: "images"}},
		"another one is there": {
			map[string]string{path: "old", source: "images"},
			[]Change{{Resource: "archive " + path, Action: "install", Detail: detail("images"), Before: sum("old"), After: sum("images")}}, "", map[string]string{path: "images"},
		},
		"it was not copied": {
			nil, []Change{{Resource: "archive " + path, Action: "install", Detail: detail("images")}},
			"its content is not on this machine: " + source + " is missing", map[string]string{},
		},
		"something else was copied": {
			map[string]string{source: "half"}, []Change{{Resource: "archive " + path, Action: "install", Detail: detail("images")}},
			source + " is not what it should be: its SHA-256 is " + sum("half") + ", but " + sum("images") + " is expected", map[string]string{source: "half"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFakeMachine(t)
			for file, text := range tt.files {
				f.write(t, file, text)
			}
			if d := cmp.Diff(tt.want, plan(t, f.converger(), state("images"))); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
			var failed string
			err := f.converger().Apply(t.Context(), state("images"), func(c Change) { failed = c.Error })
			if failed != tt.error || (tt.error != "") != errors.Is(err, ErrFailed) {
				t.Errorf("apply: %v, %q, want %q", err, failed, tt.error)
			}
			after := map[string]string{}
			for _, file := range []string{path, source} {
				if text := f.read(file); !strings.HasPrefix(text, "error: ") {
					after[file] = text
				}
			}
			if d := cmp.Diff(tt.after, after); d != "" {
				t.Errorf("afterwards (-want +got):\n%s", d)
			}
			if tt.error == "" {
				if left := plan(t, f.converger(), state("images")); len(left) != 0 {
					t.Errorf("after apply there is still %v", left)
				}
			}
		})
	}
}

// TestArchiveIsMissing: Ansible is told what to copy first, where it is needed.
func TestArchiveIsMissing(t *testing.T) {
	f := newFakeMachine(t)
	f.write(t, "/images/there", "a")
	f.write(t, "/staged/copied", "b")
	f.write(t, "/staged/half", "half")
	var q Request
	for name, content := range map[string]string{"there": "a", "copied": "b", "half": "c", "none": "d"} {
		q.State.Resources = append(q.State.Resources, Resource{Archive: &Archive{Path: "/images/" + name, Source: "/staged/" + name, SHA256: sum(content)}})
	}
	got, err := f.converger().missing(q)
	slices.Sort(got)
	if d := cmp.Diff([]string{"/staged/half", "/staged/none"}, got); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
}

func TestLeftovers(t *testing.T) {
	files := map[string]string{
		"/etc/k3s/ours-a.pem": "# ours\na", "/etc/k3s/ours-b.pem": "# ours\nb", "/etc/k3s/ours-c.pem": "of somebody else",
		"/etc/k3s/ours-d.pem": "#", "/etc/k3s/config.yaml": "# ours\n", "/etc/k3s/ours-dir.pem/x": "# ours\n",
	}
	tests := map[string]struct {
		leftovers Leftovers
		want      string // what goes
	}{
		"all that are ours":  {Leftovers{Dir: "/etc/k3s", Pattern: "ours-*.pem", Mark: "# ours\n"}, "ours-a.pem, ours-b.pem"},
		"but those to keep":  {Leftovers{Dir: "/etc/k3s", Pattern: "ours-*.pem", Mark: "# ours\n", Keep: []string{"ours-b.pem", "ours-z.pem"}}, "ours-a.pem"},
		"without a mark":     {Leftovers{Dir: "/etc/k3s", Pattern: "ours-*.pem"}, "ours-a.pem, ours-b.pem, ours-c.pem, ours-d.pem"},
		"none fits":          {Leftovers{Dir: "/etc/k3s", Pattern: "theirs-*"}, ""},
		"there is no folder": {Leftovers{Dir: "/etc/none", Pattern: "ours-*"}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFakeMachine(t)
			left := maps.Clone(files)
			for file, text := range files {
				f.write(t, file, text)
			}
			unit := "/etc/systemd/system/k3s.service"
			f.write(t, unit, "x")
			f.change(func(s *fakeState) {
				s.Units["k3s.service"] = &fakeUnit{Load: "loaded", Active: "active", Sub: "running", File: "enabled"}
			})
			id := "leftovers " + tt.leftovers.Dir + "/" + tt.leftovers.Pattern
			q := Request{State: State{Resources: []Resource{
				{Leftovers: &tt.leftovers},
				{Unit: &Unit{Name: "k3s.service", Enabled: true, Running: true, RestartOn: []string{id}}},
			}}}
			var want []Change
			if tt.want != "" {
				want = []Change{
					{Resource: id, Action: "delete", Detail: tt.want},
					{Resource: "unit k3s.service", Action: "restart", Detail: "because " + id + " changes"},
				}
				for gone := range strings.SplitSeq(tt.want, ", ") {
					delete(left, "/etc/k3s/"+gone)
				}
			}
			if d := cmp.Diff(want, plan(t, f.converger(), q)); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
			apply(t, f.converger(), q)
			for file := range files {
				_, err := os.Stat(filepath.Join(f.root, file))
				if _, stays := left[file]; stays != (err == nil) {
					t.Errorf("%s: %v, want it kept: %v", file, err, stays)
				}
			}
			if more := plan(t, f.converger(), q); len(more) != 0 {
				t.Errorf("after apply there is still %v", more)
			}
		})
	}
}

func TestLeftoversAreNeverAnyFile(t *testing.T) {
	for _, l := range []Leftovers{
		{Dir: "/etc", Pattern: ""}, {Dir: "/etc", Pattern: "*"}, {Dir: "/etc", Pattern: "**?"}, {Dir: "etc", Pattern: "a-*"},
		{Dir: "/etc", Pattern: "a/*"}, {Dir: "/etc", Pattern: "[a"}, {Dir: "/", Pattern: "a-*"},
	} {
		err := newFakeMachine(t).converger().Plan(t.Context(), Request{State: State{Resources: []Resource{{Leftovers: &l}}}}, func(Change) {})
		if err == nil {
			t.Errorf("%+v was taken", l)
		}
	}
}
