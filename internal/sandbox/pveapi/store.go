package pveapi

import (
	"sync"

	"github.com/google/renameio/v2"
)

// store writes the state to its file. Callers that changed the state wait
// until a write that began after their change has reached the disk; changes
// made meanwhile share the next write.
type store struct {
	path    string
	marshal func() (data []byte, version uint64, err error)

	mu      sync.Mutex
	changed *sync.Cond
	wanted  uint64 // the newest version somebody waits for
	written uint64 // the newest version on disk
	err     error  // why the newest attempt failed
	tried   uint64 // the newest version an attempt was made for
	closed  bool
	stopped bool
	done    chan struct{}
}

func newStore(path string, marshal func() ([]byte, uint64, error)) *store {
	s := &store{path: path, marshal: marshal, done: make(chan struct{})}
	s.changed = sync.NewCond(&s.mu)
	go s.run()
	return s
}

func (s *store) run() {
	defer close(s.done)
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for s.wanted <= s.tried && !s.closed {
			s.changed.Wait()
		}
		if s.wanted <= s.tried {
			s.stopped = true
			s.changed.Broadcast()
			return
		}
		s.mu.Unlock()
		data, version, err := s.marshal()
		if err == nil {
			err = renameio.WriteFile(s.path, data, 0o600)
		}
		s.mu.Lock()
		s.tried = max(s.tried, version, s.wanted)
		if err == nil {
			s.written = max(s.written, version)
			s.tried = version
		}
		s.err = err
		s.changed.Broadcast()
	}
}

// wait returns when version is on disk, or why it could not be written.
func (s *store) wait(version uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if version > s.wanted {
		s.wanted = version
		s.changed.Broadcast()
	}
	for s.written < version {
		if s.tried >= version && s.err != nil {
			return failed("unable to write %s: %v", s.path, s.err)
		}
		if s.stopped {
			return failed("unable to write %s: the server is closed", s.path)
		}
		s.changed.Wait()
	}
	return nil
}

// close writes what is wanted still and stops.
func (s *store) close() {
	s.mu.Lock()
	s.closed = true
	s.changed.Broadcast()
	s.mu.Unlock()
	<-s.done
}
