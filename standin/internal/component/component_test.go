package component

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/k3lab/k3lab/standin/internal/options"
)

// TestMain lets the test binary be a component: it sleeps or ends as its name
// says.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "sleeper":
			time.Sleep(time.Hour)
		case "quitter":
			os.Exit(3)
		}
	}
	os.Exit(m.Run())
}

func TestOneEndsAll(t *testing.T) {
	s := NewSupervisor()
	ctx, cancel := s.Guard(context.Background())
	defer cancel(nil)
	if err := s.Start("sleeper"); err != nil {
		t.Fatal(err)
	}
	if err := s.Start("quitter"); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if got := context.Cause(ctx).Error(); got != "quitter ended: exit status 3" {
		t.Errorf("got %q", got)
	}
	s.Stop()
	for _, c := range s.children {
		if c.cmd.ProcessState == nil {
			t.Errorf("%s is still running", c.name)
		}
	}
	if err := s.Start("sleeper"); err == nil {
		t.Error("started a child after the stop")
	}
}

func TestUsersArgumentsWin(t *testing.T) {
	args := strings.Join(SchedulerArgs(&options.Server{SchedulerArgs: []string{"profiling=true", "v=2", "v=3"}}), " ")
	for _, want := range []string{"--profiling=true", "--v=2 --v=3", "--secure-port=10259"} {
		if !strings.Contains(args, want) {
			t.Errorf("%s is missing from %s", want, args)
		}
	}
	if strings.Contains(args, "--profiling=false") {
		t.Errorf("ours was kept: %s", args)
	}
	args = strings.Join(APIServerArgs(&options.Server{APIServerArgs: []string{"enable-admission-plugins+=EventRateLimit"}}, "6443", ""), " ")
	if !strings.Contains(args, "--enable-admission-plugins=NodeRestriction,EventRateLimit") {
		t.Errorf("not extended: %s", args)
	}
}

func TestQuieter(t *testing.T) {
	var out bytes.Buffer
	q := &quieter{out: &out}
	for _, part := range []string{"I1123 10:00 noise\nW1123 10:", "00 warning\nI1", "123 more noise\nInformation\n{\"level\":\"warn\"}\n"} {
		if _, err := q.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if want := "W1123 10:00 warning\nInformation\n{\"level\":\"warn\"}\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
