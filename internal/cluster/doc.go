// Package cluster knows K3s as a running cluster: its release binaries, when
// its members are healthy, and how to talk to its API.
//
// A server is a member of the cluster's datastore, K3s's embedded etcd: first a
// learner, then a voter. The datastore has quorum while more than half of the
// voters are up. A node is the Kubernetes Node object of a server or an agent.
package cluster

import (
	"context"
	"net"
)

// Machines reaches the lab's machines; features declare what they need of it.
type Machines interface {
	// Dial connects from the machine itself, for services on its loopback.
	Dial(ctx context.Context, machine, network, address string) (net.Conn, error)
	// ReadFile reads a file as root.
	ReadFile(ctx context.Context, machine, path string) ([]byte, error)
	// Unit tells the state of a systemd unit.
	Unit(ctx context.Context, machine, unit string) (UnitState, error)
	// Journal returns the last lines a unit has logged.
	Journal(ctx context.Context, machine, unit string, lines int) (string, error)
}

// UnitState is what systemd says of a unit.
type UnitState struct {
	Active   string `json:"active"` // active, activating, failed, inactive, …
	Sub      string `json:"sub"`    // running, start, auto-restart, …
	Restarts int    `json:"restarts"`
}
