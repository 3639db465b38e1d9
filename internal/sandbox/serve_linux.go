package sandbox

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/sandbox/machine"
	"github.com/k3lab/k3lab/internal/sandbox/pveapi"
)

// listenerVariable tells the daemon that its socket is open, and where.
const listenerVariable = "K3LAB_SANDBOX_LISTENER"

// Serve is the sandbox's daemon: it answers the API until ctx ends or it is
// told to stop. Machines go on running without it.
func Serve(ctx context.Context, name string) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	p, err := placeOf(name)
	if err != nil {
		return err
	}
	info, err := p.load()
	if err != nil {
		return err
	}
	if info == nil {
		return notThere(name)
	}
	listener, err := inheritListener(ctx, info)
	if err != nil {
		return err
	}
	defer listener.Close()
	o, err := info.apiOptions(ctx, p)
	if err != nil {
		return err
	}
	server, err := pveapi.Open(o)
	if err != nil {
		return err
	}
	defer server.Close()
	return server.Serve(ctx, listener)
}

func notThere(name string) error {
	return fault.New(fault.Failed, "sandbox "+name, "k3lab sandbox up "+name, "is not up")
}

// inheritListener takes over the socket that Up has opened, or when started by
// hand opens it.
func inheritListener(ctx context.Context, info *Info) (net.Listener, error) {
	address := os.Getenv(listenerVariable)
	if address == "" || "https://"+address != info.Endpoint {
		return listen(ctx, info)
	}
	f := os.NewFile(listenerFD, "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fault.New(fault.Failed, info.Endpoint, "", "inherited socket: %w", err)
	}
	return l, nil
}

// apiOptions describe the simulated cluster, and start the driver of its machines.
func (i *Info) apiOptions(ctx context.Context, p place) (pveapi.Options, error) {
	o := pveapi.Options{
		StateDir: p.api(), ClusterName: "sandbox-" + i.Name, Token: parseToken(string(i.Token)),
		ImageNote: "k3lab sandbox: nothing was downloaded; every image is the sandbox's own root image of Debian",
		Log:       logLine,
	}
	for n, h := range i.Hypervisors {
		o.Hypervisors = append(o.Hypervisors, pveapi.Hypervisor{
			Name: h.Name, MemoryMiB: h.MemoryMiB, Cores: h.Cores, Address: fmt.Sprintf("127.0.0.%d", n+1),
		})
	}
	if i.Machines == None {
		return o, nil
	}
	groups, err := machine.NewGroups(p.tag())
	if err != nil {
		return o, err
	}
	if err := groups.Enter("api"); err != nil {
		return o, err
	}
	network, err := i.network(p)
	if err != nil {
		return o, err
	}
	layers, err := rootImage(logLine).Make(ctx)
	if err != nil {
		return o, err
	}
	driver, err := machine.New(ctx, machine.Options{
		Dir: p.machines(), Image: layers, Network: network, Groups: groups, ImagesDir: i.ImagesDir, Log: logLine,
	})
	if err != nil {
		return o, err
	}
	o.Power, o.Disks = driver, driver
	return o, nil
}

// logLine writes to the daemon's log, which is its standard error.
func logLine(format string, args ...any) {
	fmt.Fprintln(os.Stderr, time.Now().Format(time.RFC3339), fmt.Sprintf(format, args...))
}

// parseToken splits "user@realm!id=secret".
func parseToken(text string) pveapi.Token {
	name, secret, _ := strings.Cut(text, "=")
	user, id, _ := strings.Cut(name, "!")
	return pveapi.Token{User: user, ID: id, Secret: secret}
}
