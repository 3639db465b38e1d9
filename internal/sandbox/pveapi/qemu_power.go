package pveapi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"
)

func qemuPowerRoutes() []route {
	const status = "/nodes/{node}/qemu/{vmid}/status"
	const priv = "VM.PowerMgmt"
	return []route{
		{method: "GET", path: status, privilege: "VM.Audit", handle: statusIndex},
		{method: "GET", path: status + "/current", privilege: "VM.Audit", handle: (*Server).currentStatus},
		{method: "POST", path: status + "/start", privilege: priv, handle: (*Server).startVM},
		{method: "POST", path: status + "/stop", privilege: priv, handle: (*Server).stopVM},
		{method: "POST", path: status + "/shutdown", privilege: priv, handle: (*Server).shutdownVM},
		{method: "POST", path: status + "/reboot", privilege: priv, handle: (*Server).rebootVM},
		{method: "POST", path: status + "/reset", privilege: priv, handle: (*Server).resetVM},
	}
}

func statusIndex(s *Server, r *request) (any, error) {
	if _, err := s.vm(r); err != nil {
		return nil, err
	}
	return []object{{"subdir": "current"}, {"subdir": "start"}, {"subdir": "stop"}, {"subdir": "reset"}, {"subdir": "shutdown"}, {"subdir": "reboot"}}, nil
}

func (s *Server) currentStatus(r *request) (any, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	o := s.brief(vm)
	delete(o, "node")
	o["qmpstatus"], o["ha"] = o["status"], object{"managed": 0}
	if a, err := parseProps(vm.Config["agent"], "enabled"); err == nil && truth(a["enabled"]) {
		o["agent"] = 1
	}
	return o, nil
}

// reconcile takes over what Power says of the VM, for machines that died, or
// were stopped, on their own. The caller holds the server's lock.
func (s *Server) reconcile(vm *VM) {
	running := s.opts.Power.Running(vm.VMID)
	if running == vm.Running {
		return
	}
	vm.Running = running
	if !running {
		vm.Booted = nil
		return
	}
	vm.Started = true
	if vm.StartedAt == 0 {
		vm.StartedAt = s.now()
	}
}

// recoverPower finds out, at Open, what runs.
func (s *Server) recoverPower() {
	for _, id := range s.state.vmids() {
		vm := s.state.VMs[id]
		if a, ok := s.opts.Power.(adopter); ok && vm.Started {
			spec, err := vm.spec()
			if err != nil {
				s.opts.Log("VM %d: %v", id, err)
			}
			a.adopt(spec, vm.Running, sortedNames(vm.Snapshots))
		}
		s.reconcile(vm)
	}
}

// power forks a task that changes the VM's power state.
func (s *Server) power(r *request, vm *VM, typ string, do func(context.Context) error) upid {
	return s.fork(r, job{typ: typ, id: vmidText(vm.VMID), vmid: vm.VMID, exclusive: true, do: func(ctx context.Context, _ *worker) error {
		err := s.view(func() error {
			if s.state.VMs[vm.VMID] == nil {
				return noConfig(r.node(), vm.VMID)
			}
			return s.checkLock(vm)
		})
		if err != nil {
			return err
		}
		return do(ctx)
	}})
}

// view runs f on the locked state.
func (s *Server) view(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f()
}

func (s *Server) startVM(r *request) (any, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	seconds, err := r.number("timeout", 0)
	if err != nil {
		return nil, err
	}
	return s.power(r, vm, "qmstart", func(ctx context.Context) error {
		if seconds > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
			defer cancel()
		}
		return s.start(ctx, vm.VMID)
	}), nil
}

// start boots the VM with its present configuration.
func (s *Server) start(ctx context.Context, id int) error {
	var spec Spec
	var booted map[string]string
	err := s.view(func() error {
		vm := s.state.VMs[id]
		switch s.reconcile(vm); {
		case vm.template():
			return failed("you can't start a vm if it's a template")
		case vm.Running:
			return failed("VM %d already running", id)
		}
		booted = maps.Clone(vm.Config)
		h, err := s.hypervisor(vm.Node)
		if err != nil {
			return err
		}
		if spec, err = vm.spec(); err != nil {
			return err
		}
		return h.checkBridges(spec)
	})
	if err != nil {
		return err
	}
	if err := s.opts.Power.Start(ctx, spec); err != nil {
		return fmt.Errorf("start failed: %w", err)
	}
	return s.update(func(st *State) error {
		vm := st.VMs[id]
		vm.Running, vm.Started, vm.StartedAt, vm.Booted = true, true, s.now(), booted
		return nil
	})
}

func (s *Server) stopVM(r *request) (any, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	return s.power(r, vm, "qmstop", func(ctx context.Context) error { return s.stop(ctx, vm.VMID) }), nil
}

// stop pulls the plug; a stopped VM stays stopped.
func (s *Server) stop(ctx context.Context, id int) error {
	if err := s.opts.Power.Stop(ctx, id); err != nil {
		return fmt.Errorf("stop failed: %w", err)
	}
	return s.stopped(id)
}

func (s *Server) stopped(id int) error {
	return s.update(func(st *State) error {
		vm := st.VMs[id]
		vm.Running, vm.Booted = false, nil
		return nil
	})
}

func (s *Server) shutdownVM(r *request) (any, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	seconds, err := r.number("timeout", defaultShutdown)
	if err != nil {
		return nil, err
	}
	force := r.flag("forceStop")
	return s.power(r, vm, "qmshutdown", func(ctx context.Context) error { return s.shutdown(ctx, vm.VMID, seconds, force) }), nil
}

// defaultShutdown is how long a VM may take to shut down, in seconds.
const defaultShutdown = 60

func (s *Server) shutdown(ctx context.Context, id, seconds int, force bool) error {
	if !s.opts.Power.Running(id) {
		return s.stopped(id)
	}
	graceful, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
	defer cancel()
	err := s.opts.Power.Shutdown(graceful, id)
	switch {
	case err == nil:
		return s.stopped(id)
	case ctx.Err() != nil:
		return ctx.Err()
	case force:
		return s.stop(ctx, id)
	case errors.Is(err, context.DeadlineExceeded), graceful.Err() != nil:
		return failed("VM quit/powerdown failed - got timeout")
	}
	return fmt.Errorf("VM quit/powerdown failed: %w", err)
}

func (s *Server) rebootVM(r *request) (any, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	if !vm.Running {
		return nil, failed("VM %d not running", vm.VMID)
	}
	seconds, err := r.number("timeout", defaultShutdown)
	if err != nil {
		return nil, err
	}
	return s.power(r, vm, "qmreboot", func(ctx context.Context) error {
		if err := s.shutdown(ctx, vm.VMID, seconds, false); err != nil {
			return err
		}
		return s.start(ctx, vm.VMID)
	}), nil
}

// resetVM is the reset button: the machine starts anew, with the configuration
// it was booted with.
func (s *Server) resetVM(r *request) (any, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	if !vm.Running {
		return nil, failed("VM %d not running", vm.VMID)
	}
	return s.power(r, vm, "qmreset", func(ctx context.Context) error {
		var spec Spec
		err := s.view(func() error {
			old := *vm
			if vm.Booted != nil {
				old.Config = vm.Booted
			}
			var err error
			spec, err = old.spec()
			return err
		})
		if err != nil {
			return err
		}
		if err := s.opts.Power.Stop(ctx, vm.VMID); err != nil {
			return fmt.Errorf("reset failed: %w", err)
		}
		if err := s.opts.Power.Start(ctx, spec); err != nil {
			return fmt.Errorf("reset failed: %w", err)
		}
		return s.update(func(*State) error {
			vm.Running, vm.StartedAt = true, s.now()
			return nil
		})
	}), nil
}
