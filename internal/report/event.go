// Package report carries what an operation does to the people and programs that
// watch: typed events go to a live tree on a terminal, to plain lines in a pipe,
// to JSON lines for programs, and to the run journal.
package report

import "time"

// Kind says what an event tells.
type Kind string

// The kinds of event.
const (
	StepStarted Kind = "step-started"
	StepDone    Kind = "step-done"
	StepFailed  Kind = "step-failed"
	ObjectState Kind = "object"   // an object (a machine, a VM) entered a new state: Message says which
	ChangeMade  Kind = "change"   // one change was made
	Notice      Kind = "notice"   // something the user should know; not a failure
	Warning     Kind = "warning"  //
	Progress    Kind = "progress" // how far a long piece of work is; only a live view shows it
)

// Event is one thing that happened. It never holds a secret.
type Event struct {
	Time    time.Time     `json:"time"`
	Kind    Kind          `json:"kind"`
	Step    string        `json:"step,omitempty"`
	Object  string        `json:"object,omitempty"`
	Message string        `json:"message,omitempty"`
	Took    time.Duration `json:"took_ns,omitempty"`
	Done    bool          `json:"done,omitempty"` // the object needs no more work in this step
	Failed  bool          `json:"failed,omitempty"`
}

// Reporter receives events. Implementations are safe for concurrent use and
// fill in Time and Step when they are zero.
type Reporter interface {
	Report(e Event)
}
