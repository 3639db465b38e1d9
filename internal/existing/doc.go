// Package existing reads a K3s cluster that k3lab did not make: how K3s was
// started on each machine, what it runs with, and what the machine is. Nothing
// is changed anywhere, and nothing is left on a machine.
package existing
