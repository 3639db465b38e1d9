package cli

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"charm.land/lipgloss/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
	"github.com/k3lab/k3lab/internal/step"
)

func TestWritePlan(t *testing.T) {
	var out bytes.Buffer
	err := writePlan(&out, []step.Change{
		{Layer: "infra", Object: "pve1", Resource: "image", Action: step.Create},
		{Layer: "infra", Object: "server-1", Action: step.Start, Detail: "vm 201 is stopped"},
		{Layer: "infra", Object: "pve1", Resource: "template", Action: step.Create},
		{Layer: "platform", Object: "server-2", Resource: "file /etc/x", Action: step.Update, Before: "a: 1\nb: 2\n", After: "a: 1\nb: 3\n"},
		{Layer: "platform", Object: "server-3", Action: step.Update, Deferred: "the machine does not answer yet"},
		{Layer: "platform", Object: "agent-1", Resource: "sysctl kernel.panic", Action: step.Update, Detail: "0 → 10", Before: "0", After: "10"},
		{Layer: "platform", Object: "agent-2", Resource: "sysctl kernel.panic", Action: step.Update, Detail: "0 → 10", Before: "0", After: "10"},
		{Layer: "platform", Object: "agent-3", Resource: "sysctl kernel.panic", Action: step.Update, Detail: "1 → 10", Before: "1", After: "10"},
	}, true)
	if err != nil {
		t.Fatal(err)
	}
	want := `infra
  pve1
    + create image
    + create template
  server-1
    ▶ start: vm 201 is stopped
platform
  server-2
    ~ update file /etc/x
        @@ -1,2 +1,2 @@
         a: 1
        -b: 2
        +b: 3
  server-3
    ? deferred: the machine does not answer yet
  agent-1, agent-2
    ~ update sysctl kernel.panic: 0 → 10
  agent-3
    ~ update sysctl kernel.panic: 1 → 10

7 changes, 1 deferred: known once the changes before are made.
`
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
	out.Reset()
	if err := writePlan(&out, nil, true); err != nil || out.String() != "No changes: the lab is as the settings say.\n" {
		t.Errorf("empty plan: %q, %v", out.String(), err)
	}
}

func TestUnified(t *testing.T) {
	for name, tt := range map[string]struct{ before, after, want string }{
		"the end of the last line is new": {"a: 1\nb: 2", "a: 1\nb: 2\n", `        @@ -1,2 +1,2 @@
         a: 1
        -b: 2
        \ No newline at end of file
        +b: 2
`},
		"what would command the terminal": {"a\n", "\x1b[2Jb\tc é\n", `        @@ -1,1 +1,1 @@
        -a
        +\x1b[2Jb	c é
`},
		"made": {"", "a\nb\n", `        @@ -0,0 +1,2 @@
        +a
        +b
`},
		"taken away": {"a\nb", "", `        @@ -1,2 +0,0 @@
        -a
        -b
        \ No newline at end of file
`},
		"nothing": {"a\n", "a\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if _, err := lipgloss.Fprint(&out, unified(step.Change{Before: tt.before, After: tt.after})); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, out.String()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestExitCodes(t *testing.T) {
	tests := map[string]struct {
		args []string
		code int
		err  string
	}{
		"help":                {[]string{"--help"}, 0, ""},
		"version":             {[]string{"--version"}, 0, ""},
		"unknown command":     {[]string{"upp"}, 1, `k3lab: there is no command "k3lab upp" (try: k3lab up)`},
		"unknown flag":        {[]string{"plan", "--nodes"}, 1, "k3lab: unknown flag: --nodes (try: k3lab plan --help)"},
		"no workspace":        {[]string{"-C", "DIR", "plan"}, 3, "k3lab: DIR: there is no workspace here: terraform/vars/nodes.yaml is missing (try: k3lab init DIR)"},
		"nobody to ask":       {[]string{"-C", "DIR", "up"}, 1, "k3lab: up asks before it changes anything, and nobody can be asked here (try: k3lab plan, then k3lab up --yes)"},
		"unknown example":     {[]string{"init", "DIR/x", "--example", "big"}, 3, "k3lab: big: there is no example of that name (try: one of single, small, ha, metal)"},
		"destroy, unanswered": {[]string{"-C", "DIR", "destroy"}, 1, "k3lab: destroy asks for the lab's name, and nobody can be asked here (try: k3lab destroy --name LAB)"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for i := range tt.args {
				tt.args[i] = strings.ReplaceAll(tt.args[i], "DIR", dir)
			}
			var out, errs bytes.Buffer
			code := Run(context.Background(), Streams{In: strings.NewReader(""), Out: &out, Err: &errs}, "test", tt.args)
			got := strings.ReplaceAll(strings.TrimSpace(errs.String()), dir, "DIR")
			if first, _, _ := strings.Cut(got, "\n"); code != tt.code || first != tt.err {
				t.Errorf("exit code %d, %q; want %d, %q", code, first, tt.code, tt.err)
			}
		})
	}
}

func TestInterruptedWhateverFailed(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var errs bytes.Buffer
	code := Run(ctx, Streams{In: strings.NewReader(""), Out: &bytes.Buffer{}, Err: &errs}, "test", []string{"-C", t.TempDir(), "plan"})
	if code != 130 || !strings.Contains(errs.String(), "run the same command again") {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
}

func TestWriteDesired(t *testing.T) {
	var out bytes.Buffer
	err := writeDesired(&out, "server-1", []converger.Resource{
		{Tags: []string{"os"}, Hostname: &converger.Hostname{Name: "server-1"}},
		{Tags: []string{"os"}, Sysctl: &converger.Sysctl{Key: "vm.overcommit_memory", Value: "1"}},
		{Tags: []string{"k3s"}, File: &converger.File{Path: "/etc/x", Content: "a: 1\nb: 2\n", Mode: 0o600}},
		{Tags: []string{"k3s"}, File: &converger.File{Path: "/etc/token", Content: "***\n", Mode: 0o600, Secret: true}},
		{Tags: []string{"k3s"}, Unit: &converger.Unit{Name: "k3s.service", Enabled: true, Running: true, RestartOn: []string{"file /etc/x"}}},
	})
	want := `server-1
  os
    hostname  name=server-1
    sysctl vm.overcommit_memory  value=1
  k3s
    file /etc/x  mode=0600
        a: 1
        b: 2
    file /etc/token  mode=0600 secret=true
        ***
    unit k3s.service  enabled=true restart_on=[file /etc/x] running=true
`
	if d := cmp.Diff(want, out.String()); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
}

func TestShowDesiredFailsWhereANodeIsNotKnown(t *testing.T) {
	tests := map[string]struct {
		node op.DesiredNode
		code fault.Kind
	}{
		"off":   {op.DesiredNode{Node: "server-2", Error: "no answer", Unreachable: true}, fault.Unreachable},
		"other": {op.DesiredNode{Node: "server-2", Error: "no answer"}, fault.Failed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			a := &app{Streams: Streams{Out: &out, Err: &errs}}
			err := a.showDesired([]op.DesiredNode{test.node, {Node: "server-1"}})
			var silent *silentError
			if !errors.As(err, &silent) || silent.kind != test.code {
				t.Errorf("got %v, want exit code %d", err, test.code)
			}
			if out.String() != "server-1\n" || errs.String() != "k3lab: server-2: no answer\n" {
				t.Errorf("printed %q and %q", out.String(), errs.String())
			}
		})
	}
}
