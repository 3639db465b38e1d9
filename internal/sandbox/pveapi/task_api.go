package pveapi

import (
	"slices"
	"strconv"
	"strings"
)

func taskRoutes() []route {
	return []route{
		{method: "GET", path: "/cluster/tasks", handle: (*Server).listClusterTasks},
		{method: "GET", path: "/nodes/{node}/tasks", handle: (*Server).listNodeTasks},
		{method: "GET", path: "/nodes/{node}/tasks/{upid}", handle: (*Server).taskIndex},
		{method: "GET", path: "/nodes/{node}/tasks/{upid}/status", handle: (*Server).taskStatus},
		{method: "GET", path: "/nodes/{node}/tasks/{upid}/log", handle: (*Server).taskLog},
		{method: "DELETE", path: "/nodes/{node}/tasks/{upid}", handle: (*Server).stopTask},
	}
}

// brief is a task as lists show it.
func (t *Task) brief() object {
	user, token := splitUser(t.User)
	o := object{
		"upid": t.UPID, "node": t.Node, "pid": t.PID, "pstart": t.PID - 1000, "starttime": t.Start,
		"type": t.Type, "id": t.ID, "user": user,
	}
	if token != "" {
		o["tokenid"] = token
	}
	if t.Exit != "" {
		o["endtime"], o["status"] = t.End, t.Exit
	}
	return o
}

func (s *Server) listClusterTasks(*request) (any, error) {
	out := []object{}
	for _, t := range slices.Backward(s.state.Tasks) {
		out = append(out, t.brief())
	}
	return out[:min(len(out), 25)], nil
}

func (s *Server) listNodeTasks(r *request) (any, error) {
	start, err := r.number("start", 0)
	if err != nil {
		return nil, err
	}
	limit, err := r.number("limit", 50)
	if err != nil {
		return nil, err
	}
	out := []object{}
	for _, t := range slices.Backward(s.state.Tasks) {
		if t.Node != r.node() || !taskMatches(t, r) {
			continue
		}
		if start > 0 {
			start--
			continue
		}
		if len(out) < limit {
			out = append(out, t.brief())
		}
	}
	return out, nil
}

// taskMatches applies the filters of a task list.
func taskMatches(t *Task, r *request) bool {
	running := t.Exit == ""
	switch source := r.get("source"); {
	case source == "active" && !running, (source == "" || source == "archive") && running:
		return false
	case r.get("vmid") != "" && t.ID != r.get("vmid"):
		return false
	case r.get("typefilter") != "" && t.Type != r.get("typefilter"):
		return false
	case r.get("userfilter") != "" && !strings.Contains(t.User, r.get("userfilter")):
		return false
	case r.flag("errors") && (running || t.Exit == "OK"):
		return false
	}
	return true
}

func (s *Server) findTask(r *request) (*Task, error) {
	if t := s.state.task(r.path("upid")); t != nil && t.Node == r.node() {
		return t, nil
	}
	if !strings.HasPrefix(r.path("upid"), "UPID:") {
		return nil, badParam("upid", "unable to parse worker upid '%s'", r.path("upid"))
	}
	return nil, &apiError{code: 400, msg: "no such task"}
}

func (s *Server) taskIndex(r *request) (any, error) {
	if _, err := s.findTask(r); err != nil {
		return nil, err
	}
	return []object{{"name": "log"}, {"name": "status"}}, nil
}

func (s *Server) taskStatus(r *request) (any, error) {
	t, err := s.findTask(r)
	if err != nil {
		return nil, err
	}
	o := t.brief()
	delete(o, "endtime")
	o["status"] = "running"
	if t.Exit != "" {
		o["status"], o["exitstatus"] = "stopped", t.Exit
	}
	return o, nil
}

func (s *Server) taskLog(r *request) (any, error) {
	t, err := s.findTask(r)
	if err != nil {
		return nil, err
	}
	start, err := r.number("start", 0)
	if err != nil {
		return nil, err
	}
	limit, err := r.number("limit", 50)
	if err != nil {
		return nil, err
	}
	if limit == 0 {
		limit = len(t.Log)
	}
	out := []object{}
	for i := start; i < len(t.Log) && len(out) < limit; i++ {
		out = append(out, object{"n": i + 1, "t": t.Log[i]})
	}
	if len(t.Log) == 0 {
		out = append(out, object{"n": 1, "t": "no content"})
	}
	return out, nil
}

func (s *Server) stopTask(r *request) (any, error) {
	t, err := s.findTask(r)
	if err != nil {
		return nil, err
	}
	if w := s.workers[t.UPID]; w != nil {
		w.cancel()
	}
	return nil, nil
}

// vmidText is a VMID as the wire has it in most places.
func vmidText(id int) string { return strconv.Itoa(id) }
