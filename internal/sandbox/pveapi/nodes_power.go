package pveapi

import (
	"context"
	"fmt"
	"slices"
	"strconv"
)

// startOrder is a VM's place among those that start with their hypervisor;
// VMs without a place come last.
func (vm *VM) startOrder() int {
	p, err := parseProps(vm.Config["startup"], "order")
	if err != nil {
		return lastOrder
	}
	n, err := strconv.Atoi(p["order"])
	if err != nil {
		return lastOrder
	}
	return n
}

const lastOrder = 1 << 30

// ordered lists the node's VMs that match, in the order they start.
func (s *Server) ordered(node string, match func(*VM) bool) []int {
	var out []int
	for _, id := range s.state.vmids() {
		vm := s.state.VMs[id]
		if s.reconcile(vm); vm.Node == node && !vm.template() && match(vm) {
			out = append(out, id)
		}
	}
	slices.SortStableFunc(out, func(a, b int) int { return s.state.VMs[a].startOrder() - s.state.VMs[b].startOrder() })
	return out
}

// startAll starts the node's VMs that are to start with it (with force all of
// them), as the node does when it boots.
func (s *Server) startAll(r *request) (any, error) {
	force := r.flag("force")
	ids := s.ordered(r.node(), func(vm *VM) bool { return !vm.Running && (force || truth(vm.Config["onboot"])) })
	return s.fork(r, job{typ: "startall", do: func(ctx context.Context, w *worker) error {
		return s.each(ctx, w, ids, "Starting", s.start)
	}}), nil
}

// stopAll shuts the node's running VMs down, the last started first.
func (s *Server) stopAll(r *request) (any, error) {
	ids := s.ordered(r.node(), func(vm *VM) bool { return vm.Running })
	slices.Reverse(ids)
	return s.fork(r, job{typ: "stopall", do: func(ctx context.Context, w *worker) error {
		return s.each(ctx, w, ids, "Stopping", func(ctx context.Context, id int) error { return s.shutdown(ctx, id, defaultShutdown, true) })
	}}), nil
}

// checkLockOf fails when the VM is gone or locked.
func (s *Server) checkLockOf(id int) error {
	vm := s.state.VMs[id]
	if vm == nil {
		return failed("VM %d does not exist", id)
	}
	return s.checkLock(vm)
}

// each does the same with several VMs, one after the other, and goes on when
// one fails; the first error is the task's.
func (s *Server) each(ctx context.Context, w *worker, ids []int, verb string, do func(context.Context, int) error) error {
	var first error
	for _, id := range ids {
		w.log("%s VM %d", verb, id)
		err := func() error {
			release, err := s.flocks.acquire(ctx, id, s.opts.LockTimeout)
			if err != nil {
				return err
			}
			defer release()
			if err := s.view(func() error { return s.checkLockOf(id) }); err != nil {
				return err
			}
			return do(ctx, id)
		}()
		if err != nil {
			w.log("%s VM %d failed: %v", verb, id, err)
			if first == nil {
				first = fmt.Errorf("VM %d: %w", id, err)
			}
		}
	}
	return first
}
