// Command k3lab takes a home lab from bare Proxmox VE to a running, highly
// available K3s cluster, and keeps it that way.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"github.com/k3lab/k3lab/internal/cli"
)

// version is set at link time.
var version = "dev"

func main() { os.Exit(run()) }

func run() int {
	if code, served := cli.ServePlugin(version); served {
		return code
	}
	// Kubernetes' client logs what it also returns as an error.
	klog.SetLogger(logr.Discard())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(130)
	}()
	return cli.Run(ctx, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, version, os.Args[1:])
}
