package pveapi

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Faults are the troubles the simulator makes on request; the zero value makes
// none. In a rule an empty field matches anything, and Count says how often
// the rule applies: 0 is once, -1 is until it is removed. The first rule that
// matches applies.
type Faults struct {
	// TaskDelay makes every task last at least that long.
	TaskDelay Duration `json:"task_delay,omitempty"`
	// Tasks makes some tasks slow or fail.
	Tasks []TaskFault `json:"tasks,omitempty"`
	// Requests makes API calls fail or wait.
	Requests []RequestFault `json:"requests,omitempty"`
	// Locks shows VMs as locked: VMID → backup, migrate, snapshot, …
	Locks map[int]string `json:"locks,omitempty"`
	// SilentAgents lists VMs whose guest agent does not answer.
	SilentAgents []int `json:"silent_agents,omitempty"`
	// NoAgents silences the guest agents of all VMs.
	NoAgents bool `json:"no_agents,omitempty"`
}

// TaskFault concerns tasks.
type TaskFault struct {
	Type  string   `json:"type,omitempty"` // qmstart, qmclone, …
	VMID  int      `json:"vmid,omitempty"`
	Node  string   `json:"node,omitempty"`
	Delay Duration `json:"delay,omitempty"` // before the task does anything
	Exit  string   `json:"exit,omitempty"`  // fail with this, doing nothing
	Count int      `json:"count,omitempty"`
}

// RequestFault concerns API calls by known callers, other than those to the
// fault rules themselves.
type RequestFault struct {
	Method  string   `json:"method,omitempty"`
	Path    string   `json:"path,omitempty"` // regular expression, without /api2/json
	Delay   Duration `json:"delay,omitempty"`
	Status  int      `json:"status,omitempty"` // 0 lets the call through after the delay
	Message string   `json:"message,omitempty"`
	Count   int      `json:"count,omitempty"`
}

// Duration is a time.Duration written as "1.5s" in JSON.
type Duration time.Duration

// MarshalText writes the duration as time.Duration prints.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// SetFaults replaces all fault rules. It fails, and changes nothing, when a
// path is no regular expression or a status no error.
func (s *Server) SetFaults(f Faults) error {
	for _, r := range f.Requests {
		if _, err := regexp.Compile(r.Path); err != nil {
			return err
		}
		if r.Status != 0 && (r.Status < 400 || r.Status > 599) {
			return errors.New("status of a request fault is between 400 and 599")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f.clone()
	return nil
}

// Faults returns the rules that still apply, with the counts left.
func (s *Server) Faults() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults.clone()
}

func (f Faults) clone() Faults {
	f.Tasks, f.Requests, f.SilentAgents = slices.Clone(f.Tasks), slices.Clone(f.Requests), slices.Clone(f.SilentAgents)
	locks := make(map[int]string, len(f.Locks))
	for k, v := range f.Locks {
		locks[k] = v
	}
	f.Locks = locks
	return f
}

// use counts one application of a rule and says whether that was the last.
func use(count *int) (last bool) {
	switch {
	case *count < 0:
		return false
	case *count <= 1:
		return true
	}
	*count--
	return false
}

// task returns the trouble for a task; the caller holds the server's lock.
func (f *Faults) task(j job, node string) TaskFault {
	for i := range f.Tasks {
		t := f.Tasks[i]
		if t.Type != "" && t.Type != j.typ || t.VMID != 0 && t.VMID != j.vmid || t.Node != "" && t.Node != node {
			continue
		}
		if use(&f.Tasks[i].Count) {
			f.Tasks = slices.Delete(f.Tasks, i, i+1)
		}
		t.Delay = max(t.Delay, f.TaskDelay)
		return t
	}
	return TaskFault{Delay: f.TaskDelay}
}

// agentSilent says whether the VM's agent is to keep quiet.
func (f *Faults) agentSilent(vmid int) bool {
	return f.NoAgents || slices.Contains(f.SilentAgents, vmid)
}

// injected makes the trouble a rule has for this call.
func (s *Server) injected(ctx context.Context, r *request) error {
	path := strings.TrimPrefix(r.http.URL.Path, prefix)
	if strings.HasPrefix(path, "/k3lab/") {
		return nil
	}
	rule, ok := s.requestFault(r.http.Method, path)
	if !ok {
		return nil
	}
	if rule.Delay > 0 {
		waitFor(ctx, s.ctx.Done(), time.Duration(rule.Delay))
	}
	if rule.Status == 0 {
		return nil
	}
	return &apiError{code: rule.Status, msg: rule.Message}
}

func (s *Server) requestFault(method, path string) (RequestFault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.faults.Requests {
		rule := s.faults.Requests[i]
		if rule.Method != "" && rule.Method != method || !regexp.MustCompile(rule.Path).MatchString(path) {
			continue
		}
		if use(&s.faults.Requests[i].Count) {
			s.faults.Requests = slices.Delete(s.faults.Requests, i, i+1)
		}
		return rule, true
	}
	return RequestFault{}, false
}

// faultRoutes are the sandbox's own; Proxmox has nothing of the kind.
func faultRoutes() []route {
	const path = "/k3lab/faults"
	return []route{
		{method: "GET", path: path, handle: func(s *Server, r *request) (any, error) { return s.faults.clone(), s.adminOnly(r) }},
		{method: "DELETE", path: path, handle: func(s *Server, r *request) (any, error) {
			if err := s.adminOnly(r); err != nil {
				return nil, err
			}
			s.faults = Faults{}
			return nil, nil
		}},
		{
			method: "POST", path: path,
			prepare: (*Server).postFaults, // takes the lock itself
			handle:  func(*Server, *request) (any, error) { return nil, nil },
		},
	}
}

func (s *Server) postFaults(r *request) error {
	if err := s.adminOnly(r); err != nil {
		return err
	}
	var f Faults
	if err := json.Unmarshal(r.body, &f); err != nil {
		return badParam("faults", "%v", err)
	}
	if err := s.SetFaults(f); err != nil {
		return badParam("faults", "%v", err)
	}
	return nil
}

func (s *Server) adminOnly(r *request) error {
	if r.user != s.opts.Token.Name() {
		return forbidden("/", "Sys.Modify")
	}
	return nil
}
