package op

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

type told struct{ lines []string }

func (t *told) Report(e report.Event) {
	t.lines = append(t.lines, string(e.Kind)+" "+e.Object+": "+e.Message)
}

// applying hands its writer to a function.
type applying func(w step.Writer)

func (a applying) Title() string { return "test" }

func (a applying) Plan(context.Context, report.Reporter) ([]step.Change, error) {
	return []step.Change{{Object: "x"}}, nil
}

func (a applying) Apply(_ context.Context, w step.Writer, _ []step.Change) error {
	a(w)
	return nil
}

// TestNoticesAreToldOnce: a plan tells what several machines say in one line, and
// applying it tells only what is new.
func TestNoticesAreToldOnce(t *testing.T) {
	swap := converger.Change{Resource: "swap", Notice: "belongs to the computer"}
	keys := converger.Change{Resource: "authorized keys of k3lab", Notice: "left alone"}
	change := converger.Change{Resource: "file /a", Action: "create"}
	var machines []*config.Machine
	var found [][]converger.Change
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		machines = append(machines, &config.Machine{Name: name})
		found = append(found, []converger.Change{change, swap})
	}
	found[1] = append(found[1], keys)
	var n notices
	var planned, applied told
	n.plan(&planned, machines, found)
	want := []string{"notice a, b, c, d, e and 2 more: swap: belongs to the computer", "notice b: authorized keys of k3lab: left alone"}
	if diff := cmp.Diff(want, planned.lines); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	seq := step.Sequence{applying(func(w step.Writer) {
		filtered := noticing{w, &n}
		for range 2 {
			filtered.Report(report.Event{Kind: report.Notice, Object: "g", Message: "swap: belongs to the computer"})
			filtered.Report(report.Event{Kind: report.Notice, Object: "a", Message: "packages: waiting"})
			filtered.Report(report.Event{Kind: report.ChangeMade, Object: "a", Message: "create file /a"})
		}
	})}
	if err := seq.Apply(t.Context(), &applied, step.Plan{{{Object: "x"}}}); err != nil {
		t.Fatal(err)
	}
	want = []string{"step-started : ", "notice a: packages: waiting", "change a: create file /a", "change a: create file /a", "step-done : "}
	if diff := cmp.Diff(want, applied.lines); diff != "" {
		t.Errorf("apply (-want +got):\n%s", diff)
	}
}
