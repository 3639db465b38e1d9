package fleet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/fleet"
	"github.com/k3lab/k3lab/internal/remote"
	"github.com/k3lab/k3lab/internal/remote/remotetest"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

const (
	binarySum = "db6a8b2a1aeb43e8d5c5ba8ea1ea9e5a3f8ad45c0cbb7c12c6d3ac2e0e7fd7a5"
	path      = "/var/lib/k3lab/converger/" + binarySum
)

// builtIn stands for the embedded converger of every architecture.
func builtIn(string) (fleet.Binary, error) {
	return fleet.Binary{Content: []byte("converger"), SHA256: binarySum}, nil
}

// machine is a fake that runs the converger once it has been copied there.
func machine(t *testing.T, answer remotetest.Program) *remotetest.Fake {
	f := remotetest.NewFake(t)
	f.Handle(func(ctx context.Context, c remotetest.Call, out, errs io.Writer) int {
		if _, ok := f.File(path); !ok {
			return 127
		}
		return answer(ctx, c, out, errs)
	}, path)
	f.Answer("k3lab-converger protocol 1\n", path, "version")
	f.Answer(binarySum+"  "+path+"\n", "sha256sum")
	f.Answer("", "find", "/var/lib/k3lab/converger")
	f.Answer("x86_64\n", "uname", "-m")
	return f
}

func open(t *testing.T, machines map[string]*remotetest.Fake) (*fleet.Fleet, *int) {
	var mu sync.Mutex
	dials := 0
	f := fleet.New(fleet.Options{
		Converger: builtIn,
		Dial: func(_ context.Context, name string) (remote.Runner, error) {
			mu.Lock()
			defer mu.Unlock()
			dials++
			m, ok := machines[name]
			if !ok {
				return nil, fault.New(fault.Unreachable, name, "", "no answer")
			}
			return m, nil
		},
		Arch: func(string) string { return "amd64" },
	})
	t.Cleanup(func() { f.Close() })
	return f, &dials
}

// applying runs f with the writer that only an operation has.
func applying(t *testing.T, f func(ctx context.Context, w step.Writer) error) ([]report.Event, error) {
	t.Helper()
	r := &recorder{}
	err := step.Sequence{applyStep{f}}.Apply(t.Context(), r, step.Plan{{{}}})
	return slices.DeleteFunc(r.events, func(e report.Event) bool { return e.Object == "" }), err
}

type applyStep struct {
	apply func(ctx context.Context, w step.Writer) error
}

func (applyStep) Title() string                                                { return "test" }
func (applyStep) Plan(context.Context, report.Reporter) ([]step.Change, error) { return nil, nil }
func (s applyStep) Apply(ctx context.Context, w step.Writer, _ []step.Change) error {
	return s.apply(ctx, w)
}

type recorder struct {
	mu     sync.Mutex
	events []report.Event
}

func (r *recorder) Report(e report.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func lines(changes ...converger.Change) string {
	var out strings.Builder
	for _, c := range changes {
		if err := json.NewEncoder(&out).Encode(c); err != nil {
			panic(err)
		}
	}
	return out.String()
}

func commands(f *remotetest.Fake) []string {
	var out []string
	for _, c := range f.Calls() {
		out = append(out, strings.Join(c.Args, " "))
	}
	return out
}

func TestConvergerIsCopiedOnce(t *testing.T) {
	planned := converger.Change{Resource: "file /a", Action: "create"}
	m := machine(t, func(_ context.Context, c remotetest.Call, out, _ io.Writer) int {
		if want := `{"state":{"machine":"server-1","resources":null},"only":null}`; c.Stdin != want || !c.Root {
			t.Errorf("got %q, root %v", c.Stdin, c.Root)
		}
		fmt.Fprint(out, lines(planned))
		return 0
	})
	f, dials := open(t, map[string]*remotetest.Fake{"server-1": m})
	for range 2 {
		got, err := f.Plan(t.Context(), "server-1", converger.Request{State: converger.State{Machine: "server-1"}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]converger.Change{planned}, got); diff != "" {
			t.Error(diff)
		}
	}
	want := []string{
		path + " plan", "sha256sum -- " + path, path + " version",
		"find /var/lib/k3lab/converger -mindepth 1 -maxdepth 1 -type f ! -name " + binarySum + " -delete",
		path + " plan",
		path + " plan", // the second time, one round trip
	}
	if diff := cmp.Diff(want, commands(m)); diff != "" {
		t.Error(diff)
	}
	if *dials != 1 {
		t.Errorf("dialled %d times", *dials)
	}
	if file, _ := m.File(path); file.Mode != 0o755 || file.Content != "converger" {
		t.Errorf("copied %+v", file)
	}
}

func TestConvergerThatArrivesSpoilt(t *testing.T) {
	m := machine(t, nil)
	m.Answer("0000  "+path+"\n", "sha256sum")
	m.Answer("", "rm", "-f", "--", path)
	f, _ := open(t, map[string]*remotetest.Fake{"server-1": m})
	_, err := f.Plan(t.Context(), "server-1", converger.Request{})
	want := "server-1: converger: " + path + " arrived with the SHA-256 0000 (try: run again; if it stays, look at the machine's disk and memory)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if got := commands(m); got[len(got)-1] != "rm -f -- "+path {
		t.Errorf("it stays there: %v", got)
	}
}

func TestMachineOfAnotherArchitecture(t *testing.T) {
	m := machine(t, nil)
	m.Handle(func(context.Context, remotetest.Call, io.Writer, io.Writer) int { return 2 }, path, "version")
	m.Answer("", "rm", "-f", "--", path)
	m.Answer("aarch64\n", "uname", "-m")
	f, _ := open(t, map[string]*remotetest.Fake{"pi": m})
	_, err := f.Plan(t.Context(), "pi", converger.Request{})
	want := "pi: the machine is arm64, but the settings say amd64 (try: arch: arm64 for it in terraform/vars/nodes.yaml)"
	if err == nil || err.Error() != want || fault.KindOf(err) != fault.Invalid {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestApplyReportsEachChange(t *testing.T) {
	made := converger.Change{Resource: "file /a", Action: "create", Detail: "mode 0600", Made: true}
	failed := converger.Change{Resource: "unit k3s.service", Action: "start", Error: "it does not start"}
	notice := converger.Change{Resource: "sysctl vm.x", Notice: "belongs to the computer"}
	m := machine(t, func(_ context.Context, c remotetest.Call, out, _ io.Writer) int {
		text := lines(made, notice, failed)
		fmt.Fprint(out, text[:30]) // lines may arrive in parts
		fmt.Fprint(out, text[30:])
		return 1
	})
	f, _ := open(t, map[string]*remotetest.Fake{"server-1": m})
	var got []converger.Change
	events, err := applying(t, func(ctx context.Context, w step.Writer) (err error) {
		got, err = f.Apply(ctx, w, "server-1", converger.Request{Only: []string{"file /a"}})
		return err
	})
	if want := "server-1: unit k3s.service: it does not start"; err == nil || err.Error() != want || fault.KindOf(err) != fault.Failed {
		t.Errorf("got %v, want %s", err, want)
	}
	if diff := cmp.Diff([]converger.Change{made, notice}, got); diff != "" {
		t.Error(diff)
	}
	want := []report.Event{
		{Kind: report.ChangeMade, Step: "test", Object: "server-1", Message: "create file /a (mode 0600)"},
		{Kind: report.Notice, Step: "test", Object: "server-1", Message: "sysctl vm.x: belongs to the computer"},
	}
	if diff := cmp.Diff(want, events); diff != "" {
		t.Error(diff)
	}
}

func TestConvergerThatBreaks(t *testing.T) {
	tests := []struct {
		name   string
		answer remotetest.Program
		want   string
	}{
		{"it says why", func(_ context.Context, _ remotetest.Call, _, errs io.Writer) int {
			fmt.Fprint(errs, "k3lab-converger: request: bad\n")
			return 1
		}, "server-1: " + path + " plan: exit status 1: k3lab-converger: request: bad"},
		{"it says what nobody understands", func(_ context.Context, _ remotetest.Call, out, _ io.Writer) int {
			fmt.Fprint(out, "{}\nnonsense\n{}\n")
			return 0
		}, "server-1: converger: invalid character 'o' in literal null (expecting 'u')"},
		{"it is killed", func(_ context.Context, _ remotetest.Call, out, _ io.Writer) int {
			fmt.Fprint(out, lines(converger.Change{Resource: "file /a", Error: "unreadable"}))
			return 137
		}, "server-1: file /a: unreadable\nserver-1: the converger was ended by signal 9 (try: k3lab up, which completes what was begun)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f, _ := open(t, map[string]*remotetest.Fake{"server-1": machine(t, test.answer)})
			_, err := f.Plan(t.Context(), "server-1", converger.Request{})
			if err == nil || err.Error() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestFacts(t *testing.T) {
	m := machine(t, func(_ context.Context, c remotetest.Call, out, _ io.Writer) int {
		if diff := cmp.Diff([]string{path, "facts"}, c.Args); diff != "" || c.Stdin != `{"paths":["/x"]}` {
			t.Errorf("%s %s", diff, c.Stdin)
		}
		fmt.Fprint(out, `{"arch":"arm64","paths":{"/x":true}}`)
		return 0
	})
	f, _ := open(t, map[string]*remotetest.Fake{"server-1": m})
	got, err := f.Facts(t.Context(), "server-1", converger.FactsRequest{Paths: []string{"/x"}})
	if diff := cmp.Diff(converger.Facts{Arch: "arm64", Paths: map[string]bool{"/x": true}}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestEachRunsAllToTheEnd(t *testing.T) {
	errFirst, errLast := errors.New("first"), errors.New("last")
	var mu sync.Mutex
	var ran []string
	began := make(chan struct{})
	err := fleet.Each(t.Context(), []string{"c", "b", "a"}, func(ctx context.Context, machine string) error {
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			ran = append(ran, machine)
		}()
		switch machine {
		case "c":
			close(began)
			return errFirst
		case "a":
			<-began
			return errLast
		}
		<-began
		return ctx.Err()
	})
	if err == nil || err.Error() != "first\nlast" || !errors.Is(err, errLast) {
		t.Errorf("got %v", err)
	}
	slices.Sort(ran)
	if diff := cmp.Diff([]string{"a", "b", "c"}, ran); diff != "" {
		t.Error(diff)
	}
}

// losable is a runner whose connection can end.
type losable struct {
	*remotetest.Fake
	lost chan struct{}
}

func (l losable) Lost() <-chan struct{} { return l.lost }

func TestLostConnectionIsMadeAgain(t *testing.T) {
	var dialled []losable
	f := fleet.New(fleet.Options{Dial: func(context.Context, string) (remote.Runner, error) {
		fake := remotetest.NewFake(t)
		fake.Answer("content", "cat")
		l := losable{fake, make(chan struct{})}
		dialled = append(dialled, l)
		return l, nil
	}})
	for i := range 3 {
		if got, err := f.ReadFile(t.Context(), "a", "/x"); err != nil || string(got) != "content" {
			t.Fatalf("%q, %v", got, err)
		}
		if i == 1 {
			close(dialled[0].lost)
		}
	}
	if len(dialled) != 2 {
		t.Errorf("dialled %d times", len(dialled))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Runner(t.Context(), "a"); err == nil {
		t.Error("a closed fleet still reaches machines")
	}
}

func TestConvergerThatIsNotBuiltIn(t *testing.T) {
	_, err := fleet.BuiltIn(fstest.MapFS{"embedded/README": {}}, "arm64")
	if want := "converger for linux/arm64 is not built in (try: make build)"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	got, err := fleet.BuiltIn(fstest.MapFS{"embedded/k3lab-converger-linux-arm64": {Data: []byte("x")}}, "arm64")
	want := fleet.Binary{Content: []byte("x"), SHA256: "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}
