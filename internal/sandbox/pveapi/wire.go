package pveapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// maxBody bounds a request's body; uploads stream past it.
const maxBody = 4 << 20

// object is a JSON object of an answer.
type object = map[string]any

// request is one API call: who calls, what the path names and the parameters,
// whether they came form-encoded, as JSON or in the query.
type request struct {
	http   *http.Request
	user   string // "root@pam", or "root@pam!token" for an API token
	params map[string]string
	body   []byte // of a JSON request
}

// path returns the decoded path parameter of that name.
func (r *request) path(name string) string { return r.http.PathValue(name) }

// node is the hypervisor the path names.
func (r *request) node() string { return r.path("node") }

// get returns a parameter, "" when it is absent.
func (r *request) get(name string) string { return r.params[name] }

// has tells an absent parameter from an empty one.
func (r *request) has(name string) bool { _, ok := r.params[name]; return ok }

// flag reads a boolean parameter as Proxmox does: 1, on, yes and true are set.
func (r *request) flag(name string) bool { return truth(r.params[name]) }

func truth(s string) bool {
	switch strings.ToLower(s) {
	case "1", "on", "yes", "true":
		return true
	}
	return false
}

// number reads an integer parameter, def when it is absent.
func (r *request) number(name string, def int) (int, error) {
	s, ok := r.params[name]
	if !ok || s == "" {
		return def, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, badParam(name, "type check ('integer') failed - got '%s'", s)
	}
	return n, nil
}

// require refuses a call that lacks one of the parameters.
func (r *request) require(names ...string) error {
	missing := map[string]string{}
	for _, n := range names {
		if r.params[n] == "" {
			missing[n] = "property is missing and it is not optional"
		}
	}
	if len(missing) > 0 {
		return badParams(missing)
	}
	return nil
}

// readRequest collects the parameters of query and body.
func readRequest(h *http.Request) (*request, error) {
	r := &request{http: h, params: map[string]string{}}
	for k, v := range h.URL.Query() {
		r.params[k] = strings.Join(v, ",")
	}
	kind, _, err := mime.ParseMediaType(h.Header.Get("Content-Type"))
	if err != nil {
		kind = "" // absent, or nothing that could be told apart
	}
	if h.Body == nil || kind == "multipart/form-data" {
		return r, nil
	}
	if r.body, err = io.ReadAll(io.LimitReader(h.Body, maxBody)); err != nil {
		return nil, &apiError{code: http.StatusBadRequest, msg: "unable to read parameters: " + err.Error()}
	}
	if kind == "application/json" {
		return r, r.readJSON()
	}
	form, err := url.ParseQuery(string(r.body))
	if err != nil {
		return nil, &apiError{code: http.StatusBadRequest, msg: "unable to parse parameters: " + err.Error()}
	}
	for k, v := range form {
		r.params[k] = strings.Join(v, ",")
	}
	return r, nil
}

// readJSON turns a JSON object into parameters: booleans into 0 and 1, lists
// into comma-separated text.
func (r *request) readJSON() error {
	if len(bytes.TrimSpace(r.body)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		return &apiError{code: http.StatusBadRequest, msg: "unable to parse JSON parameters: " + err.Error()}
	}
	for k, v := range m {
		if v != nil {
			r.params[k] = jsonText(v)
		}
	}
	return nil
}

func jsonText(v any) string {
	switch v := v.(type) {
	case bool:
		if v {
			return "1"
		}
		return "0"
	case []any:
		s := make([]string, len(v))
		for i, x := range v {
			s[i] = jsonText(x)
		}
		return strings.Join(s, ",")
	case map[string]any:
		b, err := json.Marshal(v)
		if err != nil {
			return ""
		}
		return string(b)
	}
	return fmt.Sprint(v)
}

// answer writes {"data": …}.
func answer(w http.ResponseWriter, data any) {
	b, err := json.Marshal(object{"data": data})
	if err != nil {
		answerError(w, failed("unable to encode answer: %v", err))
		return
	}
	w.Header().Set("Content-Type", "application/json;charset=UTF-8")
	w.Header().Set("Cache-Control", "max-age=0")
	_, _ = w.Write(b) // the client may be gone; nobody is left to tell
}

// answerError puts the message into the reason phrase, as pveproxy does.
// net/http writes only its own phrases, hence the connection is taken over.
func answerError(w http.ResponseWriter, err error) {
	e := asAPIError(err)
	o := object{"data": nil, "message": e.msg + "\n"}
	if len(e.fields) > 0 {
		o["errors"] = e.fields
	}
	body, merr := json.Marshal(o)
	if merr != nil {
		body = []byte(`{"data":null}`)
	}
	hj, ok := w.(http.Hijacker)
	if !ok {
		http.Error(w, e.msg, e.code)
		return
	}
	c, b, herr := hj.Hijack()
	if herr != nil {
		return
	}
	defer c.Close()
	phrase := strings.NewReplacer("\r", " ", "\n", " ").Replace(e.msg)
	_, _ = fmt.Fprintf(b, "HTTP/1.1 %d %s\r\nContent-Type: application/json;charset=UTF-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		e.code, phrase, len(body), body)
	_ = b.Flush()
}
