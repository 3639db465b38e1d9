package converger

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func (f *fakeMachine) remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(filepath.Join(f.root, path)); err != nil {
		t.Fatal(err)
	}
}

// TestPutBackIsNoReasonToRestart: a file that was lost and is put back as the
// unit knows it needs no restart; one that the unit may have been started
// without does.
func TestPutBackIsNoReasonToRestart(t *testing.T) {
	const conf = "/etc/k3s/config.yaml"
	state := func(content string) State {
		return State{Machine: "m", Resources: []Resource{
			{File: &File{Path: conf, Content: content, Mode: 0o600}},
			{Unit: &Unit{Name: "k3s.service", Enabled: true, Running: true, RestartOn: []string{"file " + conf}}},
		}}
	}
	restart := Change{Resource: "unit k3s.service", Action: "restart", Detail: "because file " + conf + " changes"}
	create := Change{Resource: "file " + conf, Action: "create", Detail: "mode 0600", After: "a\n"}
	update := Change{Resource: "file " + conf, Action: "update", Detail: "content", Before: "a\n", After: "b\n"}
	tests := map[string]struct {
		content string
		drift   func(t *testing.T, f *fakeMachine)
		want    []Change
	}{
		"lost while the unit runs": {"a\n", func(t *testing.T, f *fakeMachine) { f.remove(t, conf) }, []Change{create}},
		"other content is desired": {"b\n", func(*testing.T, *fakeMachine) {}, []Change{update, restart}},
		"restarted while it was lost": {"a\n", func(t *testing.T, f *fakeMachine) {
			f.remove(t, conf)
			f.change(func(s *fakeState) { s.Units["k3s.service"].Starts++ })
		}, []Change{create, restart}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFakeMachine(t)
			f.change(func(s *fakeState) {
				s.Units["k3s.service"] = &fakeUnit{Load: "loaded", Active: "inactive", Sub: "dead", File: "enabled"}
			})
			c := f.converger()
			apply(t, c, Request{State: state("a\n")})
			tt.drift(t, f)
			got := plan(t, c, Request{State: state(tt.content)})
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
			apply(t, c, Request{State: state(tt.content)})
			if left := plan(t, c, Request{State: state(tt.content)}); len(left) != 0 {
				t.Errorf("after apply there is still %v", left)
			}
		})
	}
}
