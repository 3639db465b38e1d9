package machine

import (
	"context"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/sandbox/pveapi"
)

// Files of a machine beside its disks.
const (
	keeperFile  = "keeper.pid"
	nspawnFile  = "nspawn.pid"
	consoleFile = "console.log"
	notifyFile  = "notify"
	portsFile   = "cards"
	baseFile    = "base" // the layer of the root image the machine was first started with
)

// Start boots the machine and returns once its init runs. Starting a running
// machine does nothing.
func (d *Driver) Start(ctx context.Context, s pveapi.Spec) error {
	unlock, err := d.lock(ctx, s.VMID)
	if err != nil {
		return err
	}
	defer unlock()
	if d.Running(s.VMID) {
		return nil
	}
	if err := d.clear(ctx, s.VMID); err != nil {
		return err
	}
	if err := os.MkdirAll(d.file(s.VMID, "seed"), 0o700); err != nil {
		return fault.New(fault.Failed, d.dir(s.VMID), "", "%w", err)
	}
	env, err := d.prepare(ctx, s)
	if err != nil {
		return err
	}
	if err := d.launch(ctx, s, env); err != nil {
		if cerr := d.clear(ctx, s.VMID); cerr != nil {
			d.o.Log("machine %d: %v", s.VMID, cerr)
		}
		return err
	}
	return nil
}

// launch starts the keeper and waits for nspawn's word that the machine's init runs.
func (d *Driver) launch(ctx context.Context, s pveapi.Spec, env []string) error {
	socket := d.file(s.VMID, notifyFile)
	if err := os.Remove(socket); ignoreMissing(err) != nil {
		return fault.New(fault.Failed, socket, "", "%w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fault.New(fault.Failed, socket, "use a state directory with a shorter name", "%w", err)
	}
	defer conn.Close()
	console, err := os.OpenFile(d.file(s.VMID, consoleFile), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fault.New(fault.Failed, d.file(s.VMID, consoleFile), "", "%w", err)
	}
	defer console.Close()
	keeper := exec.CommandContext(context.WithoutCancel(ctx), "/bin/sh", d.file(s.VMID, "keeper.sh"))
	keeper.Env = append(env, "NOTIFY_SOCKET=/tmp/machine/"+notifyFile)
	keeper.Stdout, keeper.Stderr, keeper.Dir = console, console, "/"
	keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := keeper.Start(); err != nil {
		return fault.New(fault.Failed, s.Name, "", "keeper: %w", err)
	}
	if p, err := FindProcess(keeper.Process.Pid); err == nil {
		if err := p.Write(d.file(s.VMID, keeperFile)); err != nil {
			return fault.New(fault.Failed, s.Name, "", "%w", err)
		}
	}
	ended := make(chan struct{})
	go func() {
		_ = keeper.Wait() // how it ended stands in its state
		close(ended)
	}()
	ready := make(chan error, 1)
	go func() { ready <- awaitReady(conn) }()
	select {
	case err := <-ready:
		return err
	case <-ended:
		return fault.New(fault.Failed, s.Name, "", "does not boot (%v)%s", keeper.ProcessState, d.lastWords(s.VMID))
	case <-ctx.Done():
		// It may not have entered its cgroup yet, where clear will look.
		_ = unix.Kill(-keeper.Process.Pid, unix.SIGKILL) // gone meanwhile is as good
		<-ended
		return ctx.Err()
	}
}

// awaitReady reads nspawn's notifications until the machine's init runs.
func awaitReady(conn *net.UnixConn) error {
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		if slices.Contains(strings.Split(string(buf[:n]), "\n"), "READY=1") {
			return nil
		}
	}
}

// lastWords is the end of the machine's console.
func (d *Driver) lastWords(vmid int) string {
	b, err := os.ReadFile(d.file(vmid, consoleFile))
	if err != nil {
		return ""
	}
	return said(string(b))
}

// nspawn returns the identifier of the machine's nspawn process.
func (d *Driver) nspawn(vmid int) (int, error) {
	object := "machine " + strconv.Itoa(vmid)
	pid, err := readPID(d.file(vmid, nspawnFile))
	if err != nil {
		return 0, fault.New(fault.Failed, object, "", "is not up: %w", err)
	}
	if !slices.Contains(d.o.Groups.processes(strconv.Itoa(vmid)), pid) {
		return 0, fault.New(fault.Failed, object, "", "is not up")
	}
	return pid, nil
}

func readPID(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// powerButton asks the machine to power off; false when it is not up yet.
func (d *Driver) powerButton(vmid int) bool {
	pid, err := d.nspawn(vmid)
	if err != nil {
		return false
	}
	if unix.Kill(pid, unix.SIGTERM) != nil {
		return false
	}
	d.o.Log("machine %d: asked to power off at %s", vmid, time.Now().Format(time.TimeOnly))
	return true
}
