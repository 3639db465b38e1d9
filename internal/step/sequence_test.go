package step_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// fake is a step over a shared world: it makes the things it wants to be there.
type fake struct {
	title       string
	world       *world
	wants       []string
	failPlan    error
	failApply   error
	failVerify  error
	planStarted chan<- string
	planMayEnd  <-chan struct{}
}

type world struct {
	mu    sync.Mutex
	there []string
	log   []string
}

func (f *fake) Title() string { return f.title }

func (f *fake) Plan(context.Context, report.Reporter) ([]step.Change, error) {
	if f.planStarted != nil {
		f.planStarted <- f.title
		<-f.planMayEnd
	}
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	var out []step.Change
	for _, w := range f.wants {
		if !contains(f.world.there, w) {
			out = append(out, step.Change{Object: w, Action: step.Create})
		}
	}
	return out, f.failPlan
}

func (f *fake) Apply(_ context.Context, w step.Writer, changes []step.Change) error {
	f.world.log = append(f.world.log, "apply "+f.title)
	if f.failApply != nil {
		return f.failApply
	}
	for _, c := range changes {
		f.world.there = append(f.world.there, c.Object)
		w.Report(report.Event{Kind: report.ChangeMade, Object: c.Object})
	}
	return nil
}

func (f *fake) Verified() bool { return false }

func (f *fake) Verify(context.Context, report.Reporter) error {
	f.world.log = append(f.world.log, "verify "+f.title)
	return f.failVerify
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func TestPlanApplyPlanIsEmpty(t *testing.T) {
	w := &world{there: []string{"a"}}
	seq := step.Sequence{&fake{title: "one", world: w, wants: []string{"a", "b"}}, &fake{title: "two", world: w, wants: []string{"c"}}}
	ctx := context.Background()
	plan, err := seq.Plan(ctx, report.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := step.Plan{{{Object: "b", Action: step.Create}}, {{Object: "c", Action: step.Create}}}
	if d := cmp.Diff(want, plan); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"a"}, w.there); d != "" {
		t.Errorf("planning changed the world:\n%s", d)
	}
	if err := seq.Apply(ctx, report.Discard, plan); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"apply one", "apply two", "verify one", "verify two"}, w.log); d != "" {
		t.Errorf("order (-want +got):\n%s", d)
	}
	if plan, err = seq.Plan(ctx, report.Discard); err != nil || !plan.Empty() {
		t.Errorf("second plan: %v, %v; want it empty", plan, err)
	}
}

func TestNothingToChangeIsStillVerified(t *testing.T) {
	w := &world{there: []string{"a"}}
	broken := errors.New("not healthy")
	seq := step.Sequence{&fake{title: "one", world: w, wants: []string{"a"}, failVerify: broken}}
	plan, err := seq.Plan(context.Background(), report.Discard)
	if err != nil || !plan.Empty() {
		t.Fatalf("plan: %v, %v", plan, err)
	}
	if err := seq.Apply(context.Background(), report.Discard, plan); !errors.Is(err, broken) {
		t.Errorf("apply: %v, want %v", err, broken)
	}
	if d := cmp.Diff([]string{"verify one"}, w.log); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
}

func TestApplyStopsAtTheFirstFailure(t *testing.T) {
	w := &world{}
	broken := errors.New("disk full")
	seq := step.Sequence{
		&fake{title: "one", world: w, wants: []string{"a"}, failApply: broken},
		&fake{title: "two", world: w, wants: []string{"b"}},
	}
	plan, err := seq.Plan(context.Background(), report.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := seq.Apply(context.Background(), report.Discard, plan); !errors.Is(err, broken) {
		t.Errorf("apply: %v, want %v", err, broken)
	}
	if d := cmp.Diff([]string{"apply one"}, w.log); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
}

// TestPlansRunAtOnce would hang if one plan waited for the other.
func TestPlansRunAtOnce(t *testing.T) {
	started, end := make(chan string), make(chan struct{})
	w := &world{}
	one, two := errors.New("one failed"), errors.New("two failed")
	seq := step.Sequence{
		&fake{title: "one", world: w, planStarted: started, planMayEnd: end, failPlan: one},
		&fake{title: "two", world: w, planStarted: started, planMayEnd: end, failPlan: two},
	}
	result := make(chan error)
	go func() {
		_, err := seq.Plan(context.Background(), report.Discard)
		result <- err
	}()
	<-started
	<-started
	close(end)
	if err := <-result; !errors.Is(err, one) || !errors.Is(err, two) {
		t.Errorf("plan: %v, want both failures", err)
	}
}
