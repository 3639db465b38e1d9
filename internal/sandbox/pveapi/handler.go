package pveapi

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"
)

// route is one call of the API.
type route struct {
	method, path string
	// privilege the caller needs; "" means any known caller.
	privilege string
	// handle runs with the server's state locked. What it returns becomes the
	// answer's data; a upid is the task it has forked.
	handle func(s *Server, r *request) (any, error)
	// prepare, when set, runs before and without the lock.
	prepare func(s *Server, r *request) error
	// exclusive calls wait for tasks that hold the VM's configuration.
	exclusive bool
	// public calls need no credentials.
	public bool
}

// taskGrace is how long an answer waits for its task: one that is done at
// once is then seen as done by a client's first poll, which saves it the
// second one a second later.
const taskGrace = 100 * time.Millisecond

const prefix = "/api2/json"

// Handler answers API calls. Errors need a connection that can be hijacked,
// so HTTP/2 must be off.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range slices.Concat(
		accessRoutes(), clusterRoutes(), nodeRoutes(), taskRoutes(), poolRoutes(), storageRoutes(),
		qemuRoutes(), qemuPowerRoutes(), qemuDiskRoutes(), snapshotRoutes(), agentRoutes(), firewallRoutes(), faultRoutes(),
	) {
		mux.HandleFunc(rt.method+" "+prefix+rt.path, func(w http.ResponseWriter, h *http.Request) { s.serve(rt, w, h) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, h *http.Request) {
		p := strings.TrimPrefix(h.URL.Path, prefix)
		s.opts.Log("%s %s: not implemented", h.Method, h.URL.Path)
		answerError(w, &apiError{code: http.StatusNotImplemented, msg: "Method '" + h.Method + " " + p + "' not implemented"})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, h *http.Request) {
		// Clients put a slash at the end of some paths; Proxmox does not mind.
		if len(h.URL.Path) > 1 {
			h.URL.Path = strings.TrimSuffix(h.URL.Path, "/")
			h.URL.RawPath = strings.TrimSuffix(h.URL.RawPath, "/")
		}
		mux.ServeHTTP(w, h)
	})
}

func (s *Server) serve(rt route, w http.ResponseWriter, h *http.Request) {
	data, err := s.call(rt, h)
	if err != nil {
		s.opts.Log("%s %s: %d %s", h.Method, h.URL.Path, asAPIError(err).code, err)
		answerError(w, err)
		return
	}
	answer(w, data)
}

func (s *Server) call(rt route, h *http.Request) (any, error) {
	r, err := readRequest(h)
	if err != nil {
		return nil, err
	}
	if !rt.public {
		if r.user, err = s.authenticate(h); err != nil {
			return nil, err
		}
		if err := s.injected(h.Context(), r); err != nil {
			return nil, err
		}
		if err := s.authorize(r, rt.privilege); err != nil {
			return nil, err
		}
	}
	if n := r.node(); n != "" {
		if _, err := s.hypervisor(n); err != nil {
			return nil, err
		}
	}
	if rt.prepare != nil {
		if err := rt.prepare(s, r); err != nil {
			return nil, err
		}
	}
	if rt.exclusive {
		release, err := s.flocks.acquire(h.Context(), r.vmid(), s.opts.LockTimeout)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	return s.locked(rt, r)
}

// locked runs the handler on the locked state, then waits until what it has
// changed is on disk.
func (s *Server) locked(rt route, r *request) (any, error) {
	data, version, done, err := func() (any, uint64, <-chan struct{}, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		data, err := rt.handle(s, r)
		if rt.method != http.MethodGet {
			s.version++
		}
		var done <-chan struct{}
		if id, ok := data.(upid); ok && s.workers[string(id)] != nil {
			done = s.workers[string(id)].done
		}
		return data, s.version, done, err
	}()
	if rt.method != http.MethodGet {
		if werr := s.store.wait(version); err == nil && werr != nil {
			err = werr
		}
	}
	if done != nil && err == nil {
		waitFor(r.http.Context(), done, taskGrace)
	}
	return data, err
}

func waitFor(ctx context.Context, done <-chan struct{}, atMost time.Duration) {
	t := time.NewTimer(atMost)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	case <-ctx.Done():
	}
}
