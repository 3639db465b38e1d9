// Package e2e runs k3lab as a person would, against a sandbox with real
// machines: one sandbox for the package, its phases in order.
//
// It needs root and what `make test` provides: K3LAB_BIN, K3LAB_K3S_BINARY and
// K3LAB_PROVIDER_MIRROR. SEEDS chooses the seeds of the interruptions.
package e2e
