// Package fleet reaches all machines of the lab at once and has the converger
// work on each: it carries the converger's binaries, copies the right one to a
// machine once, under its digest, and runs it there as root.
//
// A fleet keeps one connection to each machine for the whole operation.
package fleet

//go:generate make -C ../.. internal/fleet/embedded/k3lab-converger-linux-amd64 internal/fleet/embedded/k3lab-converger-linux-arm64
