// Package version holds what the stand-in says about itself.
package version

import (
	"fmt"
	"io"
	"runtime"
)

// Version is the K3s release the stand-in plays. Two builds with different
// values (see the Makefile) let an upgrade be rehearsed.
var Version = "v1.36.3+k3s1"

// Print writes what `k3s --version` prints: K3s's two lines, with the mark by
// which callers can tell the stand-in from a release.
func Print(w io.Writer) error {
	_, err := fmt.Fprintf(w, "k3s version %s (k3lab stand-in)\ngo version %s\n", Version, runtime.Version())
	return err
}
