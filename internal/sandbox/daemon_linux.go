package sandbox

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/sandbox/machine"
)

// listenerFD is where the daemon finds its listening socket. Up opens it, so
// that the port is known, and taken, before the daemon runs.
const listenerFD = 3

// startDaemon makes sure that the API answers. It fills in info's endpoint and
// process.
func (o Options) startDaemon(ctx context.Context, p place, info *Info, say func(string, ...any)) error {
	if daemon, err := machine.ReadProcess(p.pidFile()); err == nil && daemon.Alive() {
		if answers(ctx, info) == nil {
			info.PID = daemon.PID
			return p.save(info)
		}
		say("the API's daemon does not answer: starting it again")
		if err := stopDaemon(ctx, p); err != nil {
			return err
		}
	}
	listener, err := listen(ctx, info)
	if err != nil {
		return err
	}
	defer listener.Close()
	info.Endpoint = "https://" + listener.Addr().String()
	if err := p.save(info); err != nil {
		return err
	}
	socket, err := listener.File()
	if err != nil {
		return fault.New(fault.Failed, info.Endpoint, "", "%w", err)
	}
	defer socket.Close()
	// The log of the daemon before tells why it ended.
	if err := os.Rename(p.logFile(), p.logFile()+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Failed, p.logFile(), "", "%w", err)
	}
	log, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fault.New(fault.Failed, p.logFile(), "", "%w", err)
	}
	defer log.Close()
	argv := append(append([]string{}, o.ServeCommand...), o.Name)
	cmd := exec.CommandContext(context.WithoutCancel(ctx), argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir, cmd.ExtraFiles = log, log, "/", []*os.File{socket}
	cmd.Env = append(os.Environ(), listenerVariable+"="+listener.Addr().String())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fault.New(fault.Failed, "sandbox "+o.Name, "", "start %s: %w", argv[0], err)
	}
	if self, err := machine.FindProcess(cmd.Process.Pid); err == nil {
		if err := self.Write(p.pidFile()); err != nil {
			return fault.New(fault.Failed, p.pidFile(), "", "%w", err)
		}
	}
	info.PID = cmd.Process.Pid
	if err := o.awaitAnswer(ctx, p, info, cmd); err != nil {
		return err
	}
	return p.save(info)
}

// listen opens the endpoint the sandbox had before, or a new one.
func listen(ctx context.Context, info *Info) (*net.TCPListener, error) {
	address := strings.TrimPrefix(info.Endpoint, "https://")
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", address)
	if err != nil {
		return nil, fault.New(fault.Failed, "https://"+address, "see who uses the port: ss -lntp", "sandbox API: %w", err)
	}
	return l.(*net.TCPListener), nil
}

// awaitAnswer waits until the API answers or its daemon has ended. The socket
// is open already: a request waits in it until the daemon serves.
func (o Options) awaitAnswer(ctx context.Context, p place, info *Info, cmd *exec.Cmd) error {
	alive, ended := context.WithCancelCause(ctx)
	go func() {
		_ = cmd.Wait() // how it ended stands in its state
		ended(fmt.Errorf("the API's daemon ended (%v)", cmd.ProcessState))
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if answers(alive, info) == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-alive.Done():
			return fault.New(fault.Failed, "sandbox "+o.Name, "see "+p.logFile(), "%w%s", context.Cause(alive), lastLine(p.logFile()))
		case <-tick.C:
		}
	}
}

func lastLine(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return ": " + last
	}
	return ""
}

// stopDaemon ends the API's daemon; machines go on.
func stopDaemon(ctx context.Context, p place) error {
	daemon, err := machine.ReadProcess(p.pidFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(stopGrace)
	signal := unix.SIGTERM
	for err == nil && daemon.Alive() {
		if time.Now().After(deadline) {
			signal = unix.SIGKILL
		}
		_ = unix.Kill(daemon.PID, signal) // gone meanwhile is as good
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	if err := os.Remove(p.pidFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Failed, p.pidFile(), "", "%w", err)
	}
	return nil
}

// answers asks the API for its version.
func answers(ctx context.Context, info *Info) error {
	var version struct{ Version string }
	return ask(ctx, info, "/version", &version)
}

// ask makes one GET request of the sandbox's API.
func ask(ctx context.Context, info *Info, path string, into any) error {
	ca, err := os.ReadFile(info.CAFile)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, info.Endpoint+"/api2/json"+path, nil) //nolint:gosec // our own daemon on loopback
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "PVEAPIToken="+string(info.Token))
	resp, err := (&http.Client{Transport: transport}).Do(req) //nolint:gosec // as above
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(&struct{ Data any }{into})
}
