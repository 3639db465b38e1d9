// Package step is the engine of every operation: an ordered list of titled
// steps, each of which plans changes and applies exactly those.
//
// Plan and apply share one path. A step gets the Writer only in Apply, and every
// function that changes something takes a Writer, so a plan has nothing to
// write with.
package step

import (
	"context"

	"github.com/k3lab/k3lab/internal/report"
)

// Action says what a change does to its object.
type Action string

// The actions.
const (
	Create  Action = "create"
	Update  Action = "update"
	Delete  Action = "delete"
	Replace Action = "replace"
	Start   Action = "start"
	Stop    Action = "stop"
	Restart Action = "restart"
	Run     Action = "run"
)

// Change is one difference between what is observed and what is desired. None
// of its texts ever holds a secret.
type Change struct {
	Layer    string `json:"layer"`            // infra, platform, apps
	Object   string `json:"object"`           // a machine, or what the layer calls it
	Resource string `json:"resource"`         // e.g. "file /etc/rancher/k3s/config.yaml"; empty when Object says it all
	Action   Action `json:"action"`           // what will be done
	Detail   string `json:"detail,omitempty"` // one line
	Before   string `json:"before,omitempty"` // text before
	After    string `json:"after,omitempty"`  // text after
	// Destroys names data that is lost for good with the change: volumes, mostly.
	Destroys []string `json:"destroys,omitempty"`
	Deferred string   `json:"deferred,omitempty"` // why it can't be known before an earlier step is applied; empty when known
}

// Writer is the permission to change something, and the way to report it. Only
// the engine makes one.
type Writer interface {
	report.Reporter
	permission()
}

// Step is one titled part of an operation.
type Step interface {
	Title() string
	// Plan reads and returns what Apply would do. It changes nothing.
	Plan(ctx context.Context, r report.Reporter) ([]Change, error)
	// Apply makes the given changes, which come from Plan of the same step in
	// the same operation; what was deferred is looked at anew.
	Apply(ctx context.Context, w Writer, changes []Change) error
}

// Verifier is a step whose result is proven at the end of the operation, also
// when there was nothing to apply.
type Verifier interface {
	// Verified reports whether Apply has proven it already.
	Verified() bool
	Verify(ctx context.Context, r report.Reporter) error
}
