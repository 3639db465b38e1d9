package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// NewPlain returns a sink that writes one line per event, for pipes and logs.
func NewPlain(w io.Writer) Sink { return &plain{w: w, began: time.Now()} }

type plain struct {
	w     io.Writer
	began time.Time
}

func (p *plain) Handle(e Event) {
	if e.Kind == StepStarted || e.Kind == Progress {
		return
	}
	at := e.Time.Sub(p.began).Round(100 * time.Millisecond)
	fmt.Fprintf(p.w, "%6.1fs  %s\n", at.Seconds(), strings.ReplaceAll(line(e), "\n", "\n         "))
}

func (p *plain) Close() error { return nil }

// line is an event as one sentence.
func line(e Event) string {
	var s strings.Builder
	s.WriteString(e.Step)
	for _, part := range []string{e.Object, e.Message} {
		if part == "" {
			continue
		}
		if s.Len() > 0 {
			s.WriteString(": ")
		}
		s.WriteString(part)
	}
	switch e.Kind {
	case StepDone:
		if e.Message == "" {
			s.WriteString(": done")
		}
	case StepFailed:
		return "failed: " + s.String()
	case Warning:
		return "warning: " + s.String()
	}
	if e.Took > 0 {
		fmt.Fprintf(&s, " (%s)", Took(e.Took))
	}
	return s.String()
}

// Took is a duration as people read it: 0.3s, 12s, 2m05s.
func Took(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	default:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
}

// NewJSON returns a sink that writes each event as one JSON line.
func NewJSON(w io.Writer) Sink { return &jsonLines{json.NewEncoder(w)} }

type jsonLines struct{ enc *json.Encoder }

func (j *jsonLines) Handle(e Event) {
	// A watcher that went away must not stop the operation.
	_ = j.enc.Encode(e)
}

func (j *jsonLines) Close() error { return nil }
