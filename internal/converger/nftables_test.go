package converger

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const rulesPath = "/etc/k3lab/firewall.nft"

// nft is the fake's: a table is text, as nft lists it.
func (f *fakeMachine) nft(s *fakeState, args []string) (string, error) {
	fail := func(text string) (string, error) { return "", &programError{args: args, code: 1, stderr: text} }
	load := func(text string) (string, error) {
		if strings.Contains(text, "nonsense") {
			return fail("syntax error, unexpected string")
		}
		return strings.TrimPrefix(text, noTable("k3lab")), nil
	}
	if s.Tables == nil {
		s.Tables = map[string]string{}
	}
	switch {
	case args[0] == "unshare":
		return load(args[6])
	case args[0] == "sh":
		s.Tables["k3lab"], _ = load(args[4])
	case args[1] == "--stateless":
		if s.Tables["k3lab"] == "" {
			return fail("Error: No such file or directory\nlist table inet k3lab")
		}
		return s.Tables["k3lab"], nil
	case args[1] == "--file":
		text, err := load(f.read(strings.TrimPrefix(args[2], f.root)))
		if err != nil {
			return "", err
		}
		s.Tables["k3lab"] = text
	case args[1] == noTable("k3lab"):
		delete(s.Tables, "k3lab")
	default:
		return fail("the fake does not know this")
	}
	return "", nil
}

func rules(text string) Resource {
	return Resource{Guarded: true, Nftables: &Nftables{Table: "k3lab", Path: rulesPath, Ruleset: text}}
}

func TestNftables(t *testing.T) {
	loaded := func(file, table string) func(t *testing.T, f *fakeMachine) {
		return func(t *testing.T, f *fakeMachine) {
			if file != "" {
				f.write(t, rulesPath, file)
			}
			f.change(func(s *fakeState) { s.Tables = map[string]string{"k3lab": table} })
		}
	}
	tests := []struct {
		name    string
		machine func(t *testing.T, f *fakeMachine)
		want    string // the rules
		changes []Change
		ran     []string
	}{
		{name: "nothing is there", machine: loaded("", ""), want: "rules",
			changes: []Change{{Resource: "nftables k3lab", Action: "create", Detail: rulesPath, After: "rules"}}, ran: []string{"nft --file " + rulesPath}},
		{name: "all is as wanted", machine: loaded("rules", "rules"), want: "rules"},
		{name: "a rule was deleted by hand", machine: loaded("rules", "rul"), want: "rules",
			changes: []Change{{Resource: "nftables k3lab", Action: "update", Detail: "the rules that are loaded", Before: "rul", After: "rules"}},
			ran:     []string{"nft --file " + rulesPath}},
		{name: "the file is lost", machine: loaded("", "rules"), want: "rules",
			changes: []Change{{Resource: "nftables k3lab", Action: "update", Detail: rulesPath, Before: "rules", After: "rules"}},
			ran:     []string{"nft --file " + rulesPath}},
		{name: "none are wanted", machine: loaded("rules", "rules"), want: "",
			changes: []Change{{Resource: "nftables k3lab", Action: "delete", Before: "rules"}}, ran: []string{"nft " + noTable("k3lab")}},
		{name: "none are wanted or there", machine: loaded("", ""), want: ""},
		{name: "nft does not take them", machine: loaded("rules", "rules"), want: "nonsense",
			changes: []Change{{Resource: "nftables k3lab", Error: "its rules cannot be loaded: unshare --net sh -c printf %s \"$1\" | nft --file - && nft --stateless list table inet \"$2\" sh: syntax error, unexpected string"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFakeMachine(t)
			test.machine(t, f)
			before := f.load().Tables["k3lab"]
			q := Request{State: State{Resources: []Resource{rules(test.want)}}}
			if diff := cmp.Diff(test.changes, plan(t, f.converger(), q)); diff != "" {
				t.Error(diff)
			}
			if len(f.ran) > 0 {
				t.Errorf("a plan ran %q", f.ran)
			}
			changes := apply(t, f.converger(), q)
			ran := strings.Split(strings.ReplaceAll(strings.Join(f.ran, "\x00"), f.root, ""), "\x00")
			for i := len(ran) - 1; i >= 0; i-- {
				if !strings.HasPrefix(ran[i], "nft") {
					ran = append(ran[:i], ran[i+1:]...)
				}
			}
			if diff := cmp.Diff(append([]string{}, test.ran...), ran); diff != "" {
				t.Error(diff)
			}
			if len(test.ran) == 0 {
				return
			}
			if got := f.load().Tables["k3lab"]; got != test.want {
				t.Errorf("loaded: %q", got)
			}
			if left, err := filepath.Glob(filepath.Join(f.root, rulesPath)); err != nil || (len(left) == 1) != (test.want != "") {
				t.Errorf("file: %v", left)
			}
			if _, err := f.converger().Revert(t.Context(), asked(t, changes).ID); err != nil {
				t.Fatal(err)
			}
			if got := f.load().Tables["k3lab"]; got != before {
				t.Errorf("put back: %q, want %q", got, before)
			}
		})
	}
}

// TestNoNft: a machine without nft has no rules to remove, and none can be loaded
// before the package is there.
func TestNoNft(t *testing.T) {
	f := newFakeMachine(t)
	f.refuse = func(args []string) error {
		if args[0] == "nft" && f.load().Packages["nftables"] == "" {
			return &exec.Error{Name: "nft", Err: exec.ErrNotFound}
		}
		if args[0] == "unshare" && f.load().Packages["nftables"] == "" {
			return &programError{args: args, code: 127, stderr: "sh: 1: nft: not found"}
		}
		return nil
	}
	for _, without := range [][]Resource{{rules("")}, {{Package: &Package{Name: "curl"}}, rules("")}} {
		for _, c := range plan(t, f.converger(), Request{State: State{Resources: without}}) {
			if c.Resource != "package curl" {
				t.Errorf("got %+v", c)
			}
		}
	}
	var failed []Change
	err := f.converger().Plan(t.Context(), Request{State: State{Resources: []Resource{rules("rules")}}}, func(c Change) { failed = append(failed, c) })
	if !errors.Is(err, ErrFailed) || len(failed) != 1 || !strings.Contains(failed[0].Error, "nft: not found") {
		t.Errorf("%v, %+v", err, failed)
	}
	with := Request{State: State{Resources: []Resource{{Package: &Package{Name: "nftables"}}, rules("rules")}}}
	for _, c := range apply(t, f.converger(), with) {
		if c.Error != "" {
			t.Errorf("%+v", c)
		}
	}
	if got := f.load().Tables["k3lab"]; got != "rules" {
		t.Errorf("loaded: %q", got)
	}
	if got := plan(t, f.converger(), with); len(got) != 1 || got[0].Resource != "guard" {
		t.Errorf("got %+v", got)
	}
}
