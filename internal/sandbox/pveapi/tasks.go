package pveapi

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// keptTasks bounds the finished tasks remembered.
const keptTasks = 1000

// upid names a task; a handler that returns one has forked it.
type upid string

// job is what a task does.
type job struct {
	typ, id string // as in the UPID
	vmid    int    // the VM concerned, 0 for none
	lock    string // what the VM's configuration is locked with meanwhile
	// exclusive jobs wait for others on the same VM.
	exclusive bool
	// do runs without the server's lock and changes state by Server.update.
	do func(ctx context.Context, w *worker) error
	// undo runs on the locked state when do failed or never ran.
	undo func(st *State)
}

// worker is a running task.
type worker struct {
	server *Server
	upid   string
	cancel context.CancelFunc
	done   chan struct{}
}

// log adds a line to the task's log.
func (w *worker) log(format string, args ...any) {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	if t := w.server.state.task(w.upid); t != nil {
		t.Log = append(t.Log, fmt.Sprintf(format, args...))
	}
}

// fork starts a task and returns its name. The caller holds the server's lock.
func (s *Server) fork(r *request, j job) upid {
	s.state.Seq++
	pid := 1000 + s.state.Seq
	node := r.node()
	now := s.now()
	t := &Task{
		UPID: fmt.Sprintf("UPID:%s:%08X:%08X:%08X:%s:%s:%s:", node, pid, s.state.Seq, now, j.typ, j.id, r.user),
		Node: node, PID: pid, Type: j.typ, ID: j.id, User: r.user, Start: now,
	}
	s.state.Tasks = append(s.state.Tasks, t)
	if vm := s.state.VMs[j.vmid]; vm != nil && j.lock != "" {
		vm.Lock = j.lock
	}
	ctx, cancel := context.WithCancel(s.ctx)
	w := &worker{server: s, upid: t.UPID, cancel: cancel, done: make(chan struct{})}
	s.workers[t.UPID] = w
	trouble := s.faults.task(j, node)
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		defer close(w.done)
		defer cancel()
		err := s.work(ctx, w, j, trouble)
		if ctx.Err() != nil {
			err = errors.New("interrupted by signal")
		}
		s.finish(w, j, err)
	}()
	return upid(t.UPID)
}

// work does the job, after the trouble a fault rule makes.
func (s *Server) work(ctx context.Context, w *worker, j job, trouble TaskFault) error {
	if j.exclusive {
		release, err := s.flocks.acquire(ctx, j.vmid, s.opts.LockTimeout)
		if err != nil {
			return err
		}
		defer release()
	}
	if trouble.Delay > 0 {
		timer := time.NewTimer(time.Duration(trouble.Delay))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if trouble.Exit != "" {
		return errors.New(trouble.Exit)
	}
	return j.do(ctx, w)
}

// finish records how the task ended.
func (s *Server) finish(w *worker, j job, err error) {
	werr := s.update(func(st *State) error {
		delete(s.workers, w.upid)
		if err != nil && j.undo != nil {
			j.undo(st)
		}
		if vm := st.VMs[j.vmid]; vm != nil && j.lock != "" && vm.Lock == j.lock {
			vm.Lock = ""
		}
		t := st.task(w.upid)
		t.End, t.Exit = s.now(), "OK"
		if err != nil {
			t.Exit = err.Error()
			t.Log = append(t.Log, "TASK ERROR: "+t.Exit)
		} else {
			t.Log = append(t.Log, "TASK OK")
		}
		st.trimTasks()
		return nil
	})
	if werr != nil {
		s.opts.Log("task %s: %v", w.upid, werr)
	}
}

// trimTasks forgets the oldest finished tasks.
func (st *State) trimTasks() {
	excess := len(st.Tasks) - keptTasks
	if excess <= 0 {
		return
	}
	kept := st.Tasks[:0]
	for _, t := range st.Tasks {
		if excess > 0 && t.Exit != "" {
			excess--
			continue
		}
		kept = append(kept, t)
	}
	st.Tasks = kept
}

// recoverTasks mends what a crash interrupted. Proxmox would leave the locks
// for the administrator to lift; nobody administers a sandbox.
func (s *Server) recoverTasks() {
	for _, t := range s.state.Tasks {
		if t.Exit == "" {
			t.End, t.Exit = s.now(), "interrupted"
			t.Log = append(t.Log, "TASK ERROR: interrupted")
		}
	}
	for _, id := range s.state.vmids() {
		vm := s.state.VMs[id]
		if vm.Lock == "create" || vm.Lock == "clone" {
			s.state.forget(id)
			if err := s.deleteDisks(id); err != nil {
				s.opts.Log("VM %d: disks of an interrupted %s: %v", id, vm.Lock, err)
			}
			continue
		}
		vm.Lock = ""
	}
}

// deleteDisks removes what a half-made VM's machine may have stored. It does so
// also when the task that made it has been cancelled, within a bounded time.
func (s *Server) deleteDisks(vmid int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), 30*time.Second)
	defer cancel()
	return s.opts.Disks.Delete(ctx, vmid)
}

// flocks are the locks on VM configuration files: one task at a time.
type flocks struct {
	mu   sync.Mutex
	held map[int]chan struct{}
}

// acquire waits for the VM's lock, at most that long.
func (f *flocks) acquire(ctx context.Context, vmid int, atMost time.Duration) (release func(), err error) {
	f.mu.Lock()
	if f.held == nil {
		f.held = map[int]chan struct{}{}
	}
	c := f.held[vmid]
	if c == nil {
		c = make(chan struct{}, 1)
		f.held[vmid] = c
	}
	f.mu.Unlock()
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case c <- struct{}{}:
		return func() { <-c }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, failed("can't lock file '/var/lock/qemu-server/lock-%d.conf' - got timeout", vmid)
	}
}
