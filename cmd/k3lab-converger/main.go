// Command k3lab-converger brings the machine it runs on to its desired state.
// k3lab copies it there and runs it as root.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/k3lab/k3lab/internal/converger"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	code := converger.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
