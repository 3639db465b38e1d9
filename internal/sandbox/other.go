//go:build !linux

package sandbox

import (
	"context"
	"runtime"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
)

func notLinux() error {
	return fault.New(fault.Failed, "sandbox", "run k3lab sandbox on a Linux computer or VM", "needs Linux, this is %s", runtime.GOOS)
}

// Up fails: machines need Linux.
func Up(context.Context, Options, report.Reporter) (*Info, error) { return nil, notLinux() }

// Down fails: there is no sandbox here.
func Down(context.Context, string, report.Reporter) error { return notLinux() }

// Status fails: there is no sandbox here.
func Status(context.Context, string) (*State, error) { return nil, notLinux() }

// List returns none: there is no sandbox here.
func List() ([]string, error) { return nil, nil }

// Serve fails: machines need Linux.
func Serve(context.Context, string) error { return notLinux() }
