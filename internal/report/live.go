package report

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
)

// NewLive returns a sink for a terminal: the running step with one line per
// object is redrawn in place, what is finished scrolls up. Width returns the
// terminal's current number of columns.
func NewLive(w io.Writer, width func() int) Sink {
	l := &live{w: w, width: width, stop: make(chan struct{}), stopped: make(chan struct{})}
	go l.tick()
	return l
}

type live struct {
	mu            sync.Mutex
	w             io.Writer
	width         func() int
	steps         []*liveStep
	drawn         int // lines of the region that is redrawn
	frame         int
	stop, stopped chan struct{}
}

type liveStep struct {
	title   string
	began   time.Time
	objects []*liveObject
}

type liveObject struct {
	name, state  string
	began        time.Time
	done, failed bool
}

var (
	faint   = lipgloss.NewStyle().Faint(true)
	good    = lipgloss.NewStyle().Foreground(lipgloss.Green)
	bad     = lipgloss.NewStyle().Foreground(lipgloss.Red)
	caution = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
	spinner = []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
)

func (l *live) tick() {
	defer close(l.stopped)
	t := time.NewTicker(120 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-t.C:
			l.mu.Lock()
			l.frame++
			l.draw("")
			l.mu.Unlock()
		}
	}
}

func (l *live) Close() error {
	close(l.stop)
	<-l.stopped
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steps = nil
	l.draw("")
	return nil
}

// pause clears the region and holds the view still until the returned function
// is called.
func (l *live) pause() func() {
	l.mu.Lock()
	steps := l.steps
	l.steps = nil
	l.draw("")
	l.steps = steps
	return l.mu.Unlock
}

func (l *live) Handle(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var above string
	switch e.Kind {
	case StepStarted:
		l.step(e)
	case StepDone:
		l.end(e.Step)
		above = good.Render("✔") + " " + line(Event{Step: e.Step, Message: e.Message}) + took(e)
	case StepFailed:
		l.end(e.Step)
		above = bad.Render("✘ ") + e.Step + ": " + e.Message
	case Notice:
		above = faint.Render("· " + line(withoutStep(e)))
	case Warning:
		above = caution.Render("! " + line(Event{Object: e.Object, Message: e.Message}))
	case ChangeMade:
		above = "  " + line(withoutStep(e))
		if e.Done {
			o := l.step(e).object(e)
			o.state, o.done, o.failed = e.Message, true, false
		}
	case ObjectState, Progress:
		o := l.step(e).object(e)
		o.state, o.done, o.failed = e.Message, e.Done, e.Failed
	}
	l.draw(above)
}

func withoutStep(e Event) Event {
	e.Step = ""
	return e
}

func took(e Event) string {
	if e.Took == 0 {
		return ""
	}
	return faint.Render(" " + Took(e.Took))
}

func (l *live) step(e Event) *liveStep {
	for _, s := range l.steps {
		if s.title == e.Step {
			return s
		}
	}
	s := &liveStep{title: e.Step, began: e.Time}
	l.steps = append(l.steps, s)
	return s
}

func (l *live) end(title string) {
	for i, s := range l.steps {
		if s.title == title {
			l.steps = append(l.steps[:i], l.steps[i+1:]...)
			return
		}
	}
}

func (s *liveStep) object(e Event) *liveObject {
	for _, o := range s.objects {
		if o.name == e.Object {
			return o
		}
	}
	o := &liveObject{name: e.Object, began: e.Time}
	s.objects = append(s.objects, o)
	return o
}

// draw replaces the region by its present state, with text above it that stays.
func (l *live) draw(above string) {
	var out strings.Builder
	if l.drawn > 0 {
		fmt.Fprintf(&out, "\x1b[%dA", l.drawn)
	}
	out.WriteString("\r\x1b[J")
	if above != "" {
		out.WriteString(above + "\n")
	}
	lines := l.region()
	for _, text := range lines {
		out.WriteString(ansi.Truncate(text, l.width()-1, "…") + "\n")
	}
	l.drawn = len(lines)
	_, _ = io.WriteString(l.w, out.String())
}

func (l *live) region() []string {
	var lines []string
	spin := caution.Render(string(spinner[l.frame%len(spinner)]))
	for _, s := range l.steps {
		lines = append(lines, spin+" "+s.title+faint.Render(" "+Took(time.Since(s.began))))
		width := 0
		for _, o := range s.objects {
			width = max(width, ansi.StringWidth(o.name))
		}
		for _, o := range s.objects {
			mark := spin
			switch {
			case o.failed:
				mark = bad.Render("✘")
			case o.done:
				mark = good.Render("✔")
			}
			lines = append(lines, fmt.Sprintf("  %s %-*s  %s", mark, width, o.name, strings.ReplaceAll(o.state, "\n", " ")))
		}
	}
	return lines
}
