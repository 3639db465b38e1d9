package fleet_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/fleet"
	"github.com/k3lab/k3lab/internal/remote"
	"github.com/k3lab/k3lab/internal/remote/remotetest"
	"github.com/k3lab/k3lab/internal/step"
)

// TestGuardIsConfirmedOverANewConnection: what the machine asks for is answered
// over a connection that was made for it, and by nothing else.
func TestGuardIsConfirmedOverANewConnection(t *testing.T) {
	const settings = " (try: your address must be in admin_networks of terraform/vars/network.yaml; k3lab up)"
	answer := func(outcome string) string { return fmt.Sprintf(`{"id":"ab","outcome":%q}`, outcome) }
	tests := []struct {
		name    string
		fresh   string // what the new connection is answered; empty: it cannot be made
		old     string // what the connection that was there is answered; empty: it is lost
		want    string // the error
		new     []string
		before  []string // over the connection that was there
		confirm bool
	}{
		{name: "it works", fresh: answer(converger.Confirmed), new: []string{"confirm ab"}, before: []string{"apply"}, confirm: true},
		{name: "no new connection", old: answer(converger.PutBack), before: []string{"apply", "revert ab"},
			want: "server-1: after the change no new connection could be made, so the old state was put back: no answer" + settings},
		{name: "no connection at all", before: []string{"apply", "revert ab"},
			want: "server-1: after the change no new connection could be made; the machine puts its old state back by itself within 60 s: no answer" +
				strings.Replace(settings, "try: ", "try: wait for that; ", 1)},
		{name: "the machine has not waited", fresh: answer(converger.PutBack), new: []string{"confirm ab"}, before: []string{"apply"},
			want: "server-1: after the change no new connection could be made, so the old state was put back: the machine has not waited for it" + settings},
		{name: "only the answer was lost", fresh: "nonsense", old: answer(converger.Confirmed), new: []string{"confirm ab"}, before: []string{"apply", "revert ab"}, confirm: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			pooled := machine(t, func(_ context.Context, c remotetest.Call, out, errs io.Writer) int {
				switch {
				case c.Args[1] == "apply":
					fmt.Fprint(out, lines(converger.Change{Resource: "guard", Confirm: &converger.Confirm{ID: "ab", Seconds: 60}}))
				case test.old == "":
					fmt.Fprint(errs, "k3lab-converger: guard: broken")
					return 1
				default:
					fmt.Fprint(out, test.old)
				}
				return 0
			})
			fresh := machine(t, func(_ context.Context, _ remotetest.Call, out, _ io.Writer) int {
				fmt.Fprint(out, test.fresh)
				return 0
			})
			for _, m := range []*remotetest.Fake{pooled, fresh} {
				if err := m.Put(t.Context(), path, strings.NewReader("converger"), 9, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			dials := 0
			f := fleet.New(fleet.Options{Converger: builtIn, Arch: func(string) string { return "amd64" },
				Dial: func(context.Context, string) (remote.Runner, error) {
					switch dials++; {
					case dials == 1:
						return pooled, nil
					case test.fresh == "":
						return nil, fault.New(fault.Unreachable, "server-1", "", "no answer")
					}
					return fresh, nil
				}})
			defer f.Close()
			events, err := applying(t, func(ctx context.Context, w step.Writer) error {
				changes, err := f.Apply(ctx, w, "server-1", converger.Request{})
				if len(changes) > 0 {
					t.Errorf("a confirmation is no change: %+v", changes)
				}
				return err
			})
			if got := fmt.Sprint(err); got != test.want && (err != nil || test.want != "") {
				t.Errorf("got %s\nwant %s", got, test.want)
			}
			if err != nil && fault.KindOf(err) != fault.Unreachable {
				t.Error(fault.KindOf(err))
			}
			if (len(events) == 1) != test.confirm {
				t.Errorf("told %+v", events)
			}
			if diff := cmp.Diff(test.before, verbs(pooled)); diff != "" {
				t.Errorf("over the connection that was there: %s", diff)
			}
			if diff := cmp.Diff(test.new, verbs(fresh)); diff != "" {
				t.Errorf("over the new one: %s", diff)
			}
			if dials != 2 {
				t.Errorf("connected %d times", dials)
			}
		})
	}
}

// verbs are what the converger was called with.
func verbs(f *remotetest.Fake) []string {
	var out []string
	for _, c := range commands(f) {
		if verb, ok := strings.CutPrefix(c, path+" "); ok {
			out = append(out, verb)
		}
	}
	return out
}
