package report

import (
	"errors"
	"sync"
	"time"
)

// Sink takes events one at a time. Close ends its output.
type Sink interface {
	Handle(e Event)
	Close() error
}

// Hub passes each event, stamped with the time, to every sink in the same order.
type Hub struct {
	mu    sync.Mutex
	sinks []Sink
}

// NewHub returns a hub for these sinks.
func NewHub(sinks ...Sink) *Hub { return &Hub{sinks: sinks} }

// Add has later events passed to one more sink.
func (h *Hub) Add(s Sink) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sinks = append(h.sinks, s)
}

// Report passes the event on.
func (h *Hub) Report(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	for _, s := range h.sinks {
		s.Handle(e)
	}
}

// Pause lets f have the terminal: live views draw nothing while it runs.
func (h *Hub) Pause(f func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sinks {
		if p, ok := s.(interface{ pause() func() }); ok {
			defer p.pause()()
		}
	}
	return f()
}

// Close closes every sink and returns their errors joined. Closing twice does nothing.
func (h *Hub) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, s := range h.sinks {
		errs = append(errs, s.Close())
	}
	h.sinks = nil
	return errors.Join(errs...)
}

// InStep returns a reporter that names the step in every event that names none.
func InStep(r Reporter, step string) Reporter { return stepReporter{r, step} }

type stepReporter struct {
	next Reporter
	step string
}

func (s stepReporter) Report(e Event) {
	if e.Step == "" {
		e.Step = s.step
	}
	s.next.Report(e)
}

// Discard takes events and drops them.
var Discard Reporter = discard{}

type discard struct{}

func (discard) Report(Event) {}
