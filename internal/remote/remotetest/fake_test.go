package remotetest

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/k3lab/k3lab/internal/remote"
)

func TestFakeConformance(t *testing.T) {
	Conformance(t, func(t *testing.T) remote.Runner {
		f := NewFake(t)
		f.Handle(func(_ context.Context, c Call, out, _ io.Writer) int {
			for _, a := range c.Args[2:] {
				fmt.Fprint(out, strings.Replace(c.Args[1], "%s", a, 1))
			}
			return 0
		}, "printf")
		f.Handle(func(_ context.Context, c Call, out, _ io.Writer) int {
			text := c.Stdin
			if len(c.Args) > 1 {
				file, _ := f.File(c.Args[1])
				text = file.Content
			}
			fmt.Fprint(out, text)
			return 0
		}, "cat")
		f.Handle(func(_ context.Context, c Call, out, _ io.Writer) int {
			file, _ := f.File(c.Args[3])
			fmt.Fprintf(out, "%o\n", file.Mode)
			return 0
		}, "stat", "-c", "%a")
		f.Handle(func(_ context.Context, c Call, out, _ io.Writer) int {
			var names []string
			for path := range f.files {
				if filepath.Dir(path) == c.Args[2] {
					names = append(names, filepath.Base(path)+"\n")
				}
			}
			sort.Strings(names)
			fmt.Fprint(out, strings.Join(names, ""))
			return 0
		}, "ls", "-A")
		f.Handle(func(context.Context, Call, io.Writer, io.Writer) int { return 127 }, "/no/such/program")
		f.Handle(shell, "sh", "-c")
		return f
	})
}

// shell knows the scripts of the suite.
func shell(ctx context.Context, c Call, out, errs io.Writer) int {
	switch script := c.Args[2]; {
	case script == "echo out; echo err >&2":
		fmt.Fprint(out, "out\n")
		fmt.Fprint(errs, "err\n")
	case script == "echo why >&2; exit 3":
		fmt.Fprint(errs, "why\n")
		return 3
	case strings.HasPrefix(script, "sleep 60 & "):
		fmt.Fprint(out, "7\n")
		<-ctx.Done()
		return 143
	}
	return 0
}

// recorder stands for a test that a strict fake should fail.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func TestFakeRefusesWhatItDoesNotKnow(t *testing.T) {
	r := &recorder{TB: t}
	f := NewFake(r)
	f.Answer("ok", "systemctl", "show")
	if err := f.Run(t.Context(), remote.Cmd{Args: []string{"systemctl", "stop", "k3s"}}); err == nil {
		t.Error("an unknown command succeeds")
	}
	if _, err := f.Dial(t.Context(), "tcp", "127.0.0.1:1"); err == nil {
		t.Error("an unknown connection succeeds")
	}
	want := "[the test expects no command systemctl stop k3s the test expects no connection to tcp 127.0.0.1:1]"
	if got := fmt.Sprint(r.errors); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
