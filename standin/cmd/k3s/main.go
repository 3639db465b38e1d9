// The stand-in for K3s: its control plane and its contract with the outside,
// for machines where no K3s release can be had. See the module's README.
package main

import (
	"os"

	"github.com/k3lab/k3lab/standin/internal/command"
)

func main() {
	os.Exit(command.Main(os.Args))
}
