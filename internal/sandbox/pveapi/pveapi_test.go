package pveapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// lab is a server under test with a client that speaks to it over HTTPS.
type lab struct {
	t      *testing.T
	server *Server
	url    string
	client *http.Client
	auth   string
}

func adminToken() Token {
	return Token{User: "root@pam", ID: "k3lab", Secret: "7b5c4a3e-0000-4000-8000-000000000001"}
}

func testOptions(t *testing.T) Options {
	return Options{
		StateDir:    t.TempDir(),
		Hypervisors: []Hypervisor{{Name: "pve1"}, {Name: "pve2"}},
		Token:       adminToken(),
		Passwords:   map[string]string{"root@pam": "hunter2"},
		Log:         t.Logf,
	}
}

// open starts a server that ends with the test.
func open(t *testing.T, o Options) *lab {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, s)
}

func serve(t *testing.T, s *Server) *lab {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	ca, err := os.ReadFile(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatal("the CA file holds no certificate")
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	x := &lab{t: t, server: s, url: "https://" + l.Addr().String(), client: &http.Client{Transport: tr}}
	x.auth = "PVEAPIToken=" + adminToken().Name() + "=" + adminToken().Secret
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return x
}

// reply is an answer: the reason phrase and the data.
type reply struct {
	code   int
	reason string
	data   any
	errors map[string]any
}

// send makes a call; params go into the query of a GET or DELETE.
func (x *lab) send(method, path string, params map[string]string) reply {
	x.t.Helper()
	form := url.Values{}
	for k, v := range params {
		form.Set(k, v)
	}
	var body io.Reader
	target := x.url + prefix + path
	if method == "GET" || method == "DELETE" {
		if len(form) > 0 {
			target += "?" + form.Encode()
		}
	} else {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequest(method, target, body)
	if err != nil {
		x.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return x.do(req)
}

func (x *lab) sendJSON(method, path string, v any) reply {
	x.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		x.t.Fatal(err)
	}
	req, err := http.NewRequest(method, x.url+prefix+path, bytes.NewReader(b))
	if err != nil {
		x.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return x.do(req)
}

func (x *lab) do(req *http.Request) reply {
	x.t.Helper()
	if x.auth != "" {
		req.Header.Set("Authorization", x.auth)
	}
	res, err := x.client.Do(req)
	if err != nil {
		x.t.Fatal(err)
	}
	defer res.Body.Close()
	var out struct {
		Data   any            `json:"data"`
		Errors map[string]any `json:"errors"`
	}
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		x.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	return reply{code: res.StatusCode, reason: strings.TrimPrefix(res.Status, res.Status[:4]), data: out.Data, errors: out.Errors}
}

// get returns the data of a call that must succeed.
func (x *lab) get(path string, params map[string]string) any {
	x.t.Helper()
	return x.ok("GET", path, params)
}

func (x *lab) ok(method, path string, params map[string]string) any {
	x.t.Helper()
	r := x.send(method, path, params)
	if r.code != 200 {
		x.t.Fatalf("%s %s: %d %s %v", method, path, r.code, r.reason, r.errors)
	}
	return r.data
}

// run makes a call that forks a task, waits for its end and returns its exit status.
func (x *lab) run(method, path string, params map[string]string) string {
	x.t.Helper()
	id, ok := x.ok(method, path, params).(string)
	if !ok {
		x.t.Fatalf("%s %s: no task", method, path)
	}
	return x.wait(id)
}

func (x *lab) wait(id string) string {
	x.t.Helper()
	node := strings.Split(id, ":")[1]
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		st := x.get("/nodes/"+node+"/tasks/"+url.PathEscape(id)+"/status", nil).(map[string]any)
		if st["status"] == "stopped" {
			return st["exitstatus"].(string)
		}
		select {
		case <-tick.C:
		case <-deadline:
			x.t.Fatalf("task %s does not end", id)
		}
	}
}

// must runs a task that has to succeed.
func (x *lab) must(method, path string, params map[string]string) {
	x.t.Helper()
	if exit := x.run(method, path, params); exit != "OK" {
		x.t.Fatalf("%s %s: task ended with %q", method, path, exit)
	}
}

// refuse makes a call that must fail with that code and reason phrase.
func (x *lab) refuse(code int, reason, method, path string, params map[string]string) {
	x.t.Helper()
	r := x.send(method, path, params)
	if r.code != code || r.reason != reason {
		x.t.Errorf("%s %s %v:\n got %d %q\nwant %d %q", method, path, params, r.code, r.reason, code, reason)
	}
}

// config is the VM's configuration without what is random in it.
func (x *lab) config(node string, vmid int) map[string]any {
	x.t.Helper()
	c := x.get("/nodes/"+node+"/qemu/"+vmidText(vmid)+"/config", nil).(map[string]any)
	for _, k := range []string{"digest", "meta", "smbios1", "vmgenid"} {
		delete(c, k)
	}
	return c
}

// newVM makes a small VM with one disk.
func (x *lab) newVM(node string, vmid int, more map[string]string) {
	x.t.Helper()
	p := map[string]string{"vmid": vmidText(vmid), "name": "vm" + vmidText(vmid), "cores": "2", "memory": "1024", "scsi0": "local-lvm:8"}
	for k, v := range more {
		p[k] = v
	}
	x.must("POST", "/nodes/"+node+"/qemu", p)
}
