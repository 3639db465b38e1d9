package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"

	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/remote"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// Named names the machine in an error that does not. Of a full disk it also says
// how to look at it.
func Named(machine string, err error) error {
	var known *fault.Error
	if errors.As(err, &known) && known.Object == "" && errors.Is(err, syscall.ENOSPC) {
		return fault.New(known.Kind, machine, look(machine), "%w", known.Err)
	}
	var exit *remote.ExitError
	if errors.As(err, &exit) {
		if _, full, ok := strings.Cut(exit.Stderr, "k3lab-converger: "+diskFull); ok {
			return fault.New(fault.Failed, machine, look(machine), "%s%s", diskFull, strings.TrimSpace(full))
		}
	}
	if err == nil || errors.As(err, &known) && known.Object == machine || strings.HasPrefix(err.Error(), machine+": ") {
		return err
	}
	return fmt.Errorf("%s: %w", machine, err)
}

// diskFull is how the converger begins to say so.
const diskFull = "disk full: "

// look is the command that shows what fills a machine's disk.
func look(machine string) string {
	return "k3lab ssh " + machine + " -- sudo du -xh -d 3 / | sort -h, free space, and run the same command again"
}

// Plan returns what Apply would change on the machine, and notices. It is
// complete also beside an error, which names every resource that could not be
// read.
func (f *Fleet) Plan(ctx context.Context, machine string, q converger.Request) ([]converger.Change, error) {
	return f.converge(ctx, machine, "plan", q, func(converger.Change) {})
}

// Apply makes changes on the machine, those of q.Only if it is given, and reports
// each as it is made. It returns what was made, and notices, also beside an
// error, which names every resource that failed. Guarded changes are confirmed
// over a new connection; where that cannot be made it is an error, and the
// machine is as it was before.
func (f *Fleet) Apply(ctx context.Context, w step.Writer, machine string, q converger.Request) ([]converger.Change, error) {
	confirm := &confirmations{fleet: f, ctx: ctx, w: w, machine: machine}
	changes, err := f.converge(ctx, machine, "apply", q, func(c converger.Change) {
		if c.Confirm != nil {
			confirm.give(*c.Confirm)
			return
		}
		if e, ok := event(machine, c); ok {
			w.Report(e)
		}
	})
	return changes, errors.Join(append(confirm.wait(), err)...)
}

// event tells of a change that was made; an error is told by who gets it.
func event(machine string, c converger.Change) (report.Event, bool) {
	e := report.Event{Object: machine}
	switch {
	case c.Notice != "":
		e.Kind, e.Message = report.Notice, c.Resource+": "+c.Notice
	case c.Made:
		e.Kind, e.Message = report.ChangeMade, c.Action+" "+c.Resource
		if c.Detail != "" {
			e.Message += " (" + c.Detail + ")"
		}
	default:
		return e, false
	}
	return e, true
}

// Facts asks the machine what it is.
func (f *Fleet) Facts(ctx context.Context, machine string, q converger.FactsRequest) (converger.Facts, error) {
	var facts converger.Facts
	var out bytes.Buffer
	if err := f.run(ctx, machine, &out, q, "facts"); err != nil {
		return facts, err
	}
	if err := json.Unmarshal(out.Bytes(), &facts); err != nil {
		return facts, fmt.Errorf("%s: converger: %w", machine, err)
	}
	return facts, nil
}

func (f *Fleet) converge(ctx context.Context, machine, verb string, q converger.Request, told func(converger.Change)) ([]converger.Change, error) {
	var changes []converger.Change
	var failed []error
	lines := &jsonLines{each: func(line []byte) error {
		var c converger.Change
		if err := json.Unmarshal(line, &c); err != nil {
			return err
		}
		if c.Error != "" {
			hint := ""
			if strings.HasPrefix(c.Error, diskFull) {
				hint = look(machine)
			}
			failed = append(failed, fault.New(fault.Failed, machine, hint, "%s: %s", c.Resource, c.Error))
		}
		if c.Error == "" && c.Confirm == nil || verb == "plan" && c.IsChange() {
			changes = append(changes, c)
		}
		told(c)
		return nil
	}}
	err := f.run(ctx, machine, lines, q, verb)
	var exit *remote.ExitError
	if errors.As(err, &exit) && exit.Code == 1 && failed != nil && strings.TrimSpace(exit.Stderr) == "" {
		err = nil // the lines say what failed
	}
	return changes, errors.Join(append(failed, err, Named(machine, lines.err))...)
}

// jsonLines hands on each whole line as it arrives, up to the first that is
// not understood. It goes on reading, so that the converger can go on to its end.
type jsonLines struct {
	each func(line []byte) error
	rest []byte
	err  error
}

func (j *jsonLines) Write(p []byte) (int, error) {
	if j.err == nil {
		j.err = j.take(p)
	}
	return len(p), nil
}

func (j *jsonLines) take(p []byte) error {
	j.rest = append(j.rest, p...)
	for {
		line, rest, whole := bytes.Cut(j.rest, []byte("\n"))
		if !whole {
			return nil
		}
		if err := j.each(line); err != nil {
			return fmt.Errorf("converger: %w", err)
		}
		j.rest = rest
	}
}

// run runs the converger on the machine, in one round trip where it is there
// already; where it is not, it is copied there first.
func (f *Fleet) run(ctx context.Context, name string, out io.Writer, request any, args ...string) error {
	input, err := json.Marshal(request)
	if err != nil {
		return err
	}
	r, err := f.Runner(ctx, name)
	if err != nil {
		return err
	}
	m, err := f.machine(name)
	if err != nil {
		return err
	}
	binary, err := f.binary(ctx, r, m)
	if err != nil {
		return err
	}
	path := ConvergerPath(binary.SHA256)
	start := func() error {
		return r.Run(ctx, remote.Cmd{Args: append([]string{path}, args...), Root: true, Stdin: bytes.NewReader(input), Stdout: out})
	}
	err = start()
	if missing(err) {
		if err = f.install(ctx, r, m, binary); err == nil {
			err = start()
		}
	}
	return Named(name, interrupted(name, err))
}

// interrupted says what a converger leaves that did not come to its end, because
// it was killed or its machine rebooted: nothing half made that running again
// does not complete.
func interrupted(machine string, err error) error {
	const again = "k3lab up, which completes what was begun"
	var lost *fault.Error
	if errors.Is(err, remote.ErrLost) && errors.As(err, &lost) {
		return fault.New(fault.Unreachable, machine, again, "it was interrupted, as by a reboot: %w", lost.Err)
	}
	var exit *remote.ExitError
	if !errors.As(err, &exit) || exit.Signal == "" && exit.Code <= 128 {
		return err
	}
	by := exit.Signal
	if by == "" {
		by = strconv.Itoa(exit.Code - 128)
	}
	return fault.New(fault.Failed, machine, again, "the converger was ended by signal %s", by)
}

// missing reports whether there was no such program.
func missing(err error) bool {
	var exit *remote.ExitError
	return errors.As(err, &exit) && exit.Code == 127
}
