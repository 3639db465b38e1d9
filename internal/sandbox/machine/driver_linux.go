package machine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/k3lab/k3lab/internal/fault"
)

// Options configure a Driver. All but ImagesDir and Log are required.
type Options struct {
	Dir       string  // what machines store: <Dir>/<vmid>/
	Image     string  // layers of the root image, see Image.Make
	Network   Network // is up
	Groups    *Groups
	ImagesDir string                           // container images that every machine has before K3s starts
	Log       func(format string, args ...any) // may be nil
}

// Driver runs machines; it implements pveapi.Power and pveapi.Disks. Machines
// outlive it: a new Driver over the same directory finds them.
type Driver struct {
	o Options

	mu   sync.Mutex
	busy map[int]chan struct{} // holds a value while a machine is being worked on
}

// New returns a driver, and mends what a killed one may have left: a file
// system frozen for a snapshot.
func New(ctx context.Context, o Options) (*Driver, error) {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fault.New(fault.Failed, o.Dir, "", "%w", err)
	}
	Thaw(ctx, o.Dir)
	return &Driver{o: o, busy: map[int]chan struct{}{}}, nil
}

// lock waits for the machine; at a time only one thing is done to it.
func (d *Driver) lock(ctx context.Context, vmid int) (unlock func(), err error) {
	d.mu.Lock()
	c := d.busy[vmid]
	if c == nil {
		c = make(chan struct{}, 1)
		d.busy[vmid] = c
	}
	d.mu.Unlock()
	select {
	case c <- struct{}{}:
		return func() { <-c }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *Driver) dir(vmid int) string { return filepath.Join(d.o.Dir, strconv.Itoa(vmid)) }

func (d *Driver) file(vmid int, name string) string { return filepath.Join(d.dir(vmid), name) }

// Running reports whether any process of the machine is left.
func (d *Driver) Running(vmid int) bool {
	if p, err := ReadProcess(d.file(vmid, keeperFile)); err == nil && p.Alive() {
		return true
	}
	return len(d.o.Groups.processes(strconv.Itoa(vmid))) > 0
}

// Stop is hard: the cables are pulled first, so that nothing dying can speak a
// last word, then every process is killed. A namespace that outlived its
// machine would go on answering for its addresses; this one dies with it.
func (d *Driver) Stop(ctx context.Context, vmid int) error {
	unlock, err := d.lock(ctx, vmid)
	if err != nil {
		return err
	}
	defer unlock()
	return d.clear(ctx, vmid)
}

// clear leaves nothing of the machine but what it stores.
func (d *Driver) clear(ctx context.Context, vmid int) error {
	// Half a stop is worse than a slow one: it is finished also when the
	// caller no longer waits.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	ports := d.ports(vmid)
	if err := d.o.Network.pull(ctx, ports); err != nil {
		return err
	}
	if err := d.o.Groups.Remove(ctx, strconv.Itoa(vmid)); err != nil {
		return err
	}
	if err := d.o.Network.unplug(ctx, ports); err != nil {
		return err
	}
	if err := Detach(ctx, d.dir(vmid)); err != nil {
		return err
	}
	for _, name := range []string{keeperFile, nspawnFile} {
		if err := os.Remove(d.file(vmid, name)); ignoreMissing(err) != nil {
			return fault.New(fault.Failed, d.file(vmid, name), "", "%w", err)
		}
	}
	return nil
}

// Shutdown asks the machine's init to power off and waits until it has.
func (d *Driver) Shutdown(ctx context.Context, vmid int) error {
	unlock, err := d.lock(ctx, vmid)
	if err != nil {
		return err
	}
	defer unlock()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for asked := false; d.Running(vmid); {
		if !asked {
			asked = d.powerButton(vmid)
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Failed, "machine "+strconv.Itoa(vmid), "stop it hard", "does not shut down: %w", ctx.Err())
		case <-tick.C:
		}
	}
	return d.clear(ctx, vmid)
}

// Delete forgets all the machine has stored.
func (d *Driver) Delete(ctx context.Context, vmid int) error {
	unlock, err := d.lockStopped(ctx, vmid, "delete the disks")
	if err != nil {
		return err
	}
	defer unlock()
	if err := Detach(ctx, d.dir(vmid)); err != nil {
		return err
	}
	if err := os.RemoveAll(d.dir(vmid)); err != nil {
		return fault.New(fault.Failed, d.dir(vmid), "", "%w", err)
	}
	return nil
}

// lockStopped locks a machine that must not run for what is to be done.
func (d *Driver) lockStopped(ctx context.Context, vmid int, what string) (unlock func(), err error) {
	unlock, err = d.lock(ctx, vmid)
	if err != nil {
		return nil, err
	}
	if d.Running(vmid) {
		unlock()
		return nil, fault.New(fault.Failed, "machine "+strconv.Itoa(vmid), "stop it first", "cannot %s of a running machine", what)
	}
	return unlock, nil
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fault.New(fault.Failed, path, "", "%w", err)
	}
	return true, nil
}
