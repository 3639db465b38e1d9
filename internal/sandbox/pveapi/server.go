package pveapi

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/k3lab/k3lab/internal/fault"
)

// Server is the simulated API of one Proxmox VE cluster. Its methods may be
// called concurrently.
type Server struct {
	opts  Options
	certs *certificates
	store *store

	mu      sync.Mutex // guards what follows
	state   *State
	version uint64 // counts changes of state
	faults  Faults
	workers map[string]*worker // running tasks by UPID

	flocks flocks

	ctx    context.Context // of all workers; ends at Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Open reads the state under o.StateDir, makes it when there is none, and
// mends what a crash left behind: tasks that ran count as failed, and VMs they
// were about to make are removed. The server answers once Serve or Handler is
// called. Close it after use.
func Open(o Options) (*Server, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return nil, fault.New(fault.Failed, o.StateDir, "", "state directory: %w", err)
	}
	certs, err := loadCertificates(o.StateDir, o.Clock())
	if err != nil {
		return nil, err
	}
	file := filepath.Join(o.StateDir, "state.json")
	st, err := loadState(file, o.Clock().Unix())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{opts: o, certs: certs, state: st, workers: map[string]*worker{}, ctx: ctx, cancel: cancel}
	s.store = newStore(file, s.marshal)
	s.recoverTasks()
	s.recoverPower()
	if err := s.store.wait(s.touch()); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func loadState(file string, now int64) (*State, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails, says crypto/rand
		st := newState(key)
		st.Created = now
		return st, nil
	}
	if err != nil {
		return nil, fault.New(fault.Failed, file, "", "sandbox state: %w", err)
	}
	st, err := parseState(b)
	if err != nil {
		return nil, fault.New(fault.Failed, file, "k3lab sandbox down, then up", "sandbox state: %w", err)
	}
	return st, nil
}

// marshal is the store's view of the state.
func (s *Server) marshal() ([]byte, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := json.Marshal(s.state)
	return b, s.version, err
}

// touch counts a change of the state and returns its version.
func (s *Server) touch() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	return s.version
}

// update changes the state and returns when the change is on disk. When f
// fails, what it has changed so far stays.
func (s *Server) update(f func(*State) error) error {
	s.mu.Lock()
	err := f(s.state)
	s.version++
	v := s.version
	s.mu.Unlock()
	if werr := s.store.wait(v); err == nil {
		err = werr
	}
	return err
}

// now is the time in Unix seconds.
func (s *Server) now() int64 { return s.opts.Clock().Unix() }

// VMInfo is a VM as a listing shows it.
type VMInfo struct {
	VMID      int
	Name      string
	Node      string
	Running   bool
	Template  bool
	Addresses []string // with prefix length, as cloud-init has them
}

// VMs lists all VMs by VMID.
func (s *Server) VMs() []VMInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []VMInfo
	for _, id := range s.state.vmids() {
		vm := s.state.VMs[id]
		s.reconcile(vm)
		i := VMInfo{VMID: id, Name: vm.name(), Node: vm.Node, Running: vm.Running, Template: vm.template()}
		if spec, err := vm.spec(); err == nil {
			i.Addresses = spec.CloudInit.Addresses
		}
		out = append(out, i)
	}
	return out
}

// CAFile is the PEM file of the authority that signed the server's certificate.
func (s *Server) CAFile() string { return CAFile(s.opts.StateDir) }

// Serve answers HTTPS on l until ctx ends, then lets requests under way finish.
// It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	hs := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          log.New(logWriter{s.opts.Log}, "", 0),
	}
	ended := make(chan error, 1)
	go func() { ended <- hs.Serve(tlsListener(l, s.certs.leaf)) }()
	select {
	case err := <-ended:
		return fmt.Errorf("proxmox API simulator on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := hs.Shutdown(grace); err != nil {
		_ = hs.Close() // what did not finish in time is cut
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("proxmox API simulator on %s: %w", l.Addr(), err)
	}
	return nil
}

// logWriter gives net/http's complaints (a client that does not trust the
// certificate, say) to Options.Log.
type logWriter struct{ log func(string, ...any) }

func (w logWriter) Write(b []byte) (int, error) {
	w.log("%s", bytes.TrimSpace(b))
	return len(b), nil
}

// Close cancels running tasks, which then count as failed, and writes the
// state a last time. Machines go on running.
func (s *Server) Close() {
	s.cancel()
	s.wg.Wait()
	s.store.close()
}
