// Package remote runs commands and copies files on a machine, over SSH or
// locally.
package remote

import (
	"context"
	"io"
	"io/fs"
	"net"
)

// Cmd is one command on a machine. It runs without a shell: Args are quoted by
// the Runner.
type Cmd struct {
	Args   []string
	Root   bool // run as root (sudo -n where the login user is not root)
	Stdin  io.Reader
	Stdout io.Writer // nil: discarded
	Stderr io.Writer // nil: kept for the error
}

// Runner reaches one machine. Every method obeys its context.
type Runner interface {
	// Run runs the command to its end. A non-zero exit is an *ExitError.
	Run(ctx context.Context, cmd Cmd) error
	// Put writes size bytes to path as root, whole or not at all.
	Put(ctx context.Context, path string, content io.Reader, size int64, mode fs.FileMode) error
	// Dial connects from the machine, so that services on its loopback can be reached.
	Dial(ctx context.Context, network, address string) (net.Conn, error)
	Close() error
}
