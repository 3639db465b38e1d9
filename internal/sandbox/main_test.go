//go:build linux

package sandbox

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/k3lab/k3lab/internal/report"
)

// Arguments that make the test binary a sandbox's daemon, or a process that
// brings one up and can be killed.
const (
	serveArgument = "serve-sandbox"
	upArgument    = "up-sandbox"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == serveArgument {
		if err := Serve(context.Background(), os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 3 && os.Args[1] == upArgument {
		if _, err := Up(context.Background(), options(os.Args[2]), report.Discard); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("real machines need root")
	}
}

// lab is one sandbox under test and a client of its API.
type lab struct {
	t      *testing.T
	info   *Info
	client *http.Client
	signer ssh.Signer
}

// options of a sandbox that this test binary serves.
func options(name string) Options {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return Options{Name: name, Hypervisors: 2, ServeCommand: []string{self, serveArgument}}
}

func up(t *testing.T, o Options) *lab {
	t.Helper()
	start := time.Now()
	info, err := Up(t.Context(), o, report.Discard)
	if err != nil {
		t.Fatalf("Up: %v", err)
	}
	t.Logf("%s: up after %v", o.Name, time.Since(start).Round(time.Millisecond))
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, info: info, signer: signer}
	l.connect()
	return l
}

// connect makes the API's client anew.
func (l *lab) connect() {
	ca, err := os.ReadFile(l.info.CAFile)
	if err != nil {
		l.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	l.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
}

// call makes one request of the API and fails the test unless it succeeds.
func (l *lab) call(method, path string, form url.Values) any {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.t.Context(), method, l.info.Endpoint+"/api2/json"+path, strings.NewReader(form.Encode()))
	if err != nil {
		l.t.Fatal(err)
	}
	req.Header.Set("Authorization", "PVEAPIToken="+string(l.info.Token))
	if method != http.MethodGet {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := l.client.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		l.t.Fatalf("%s %s: %s: %s", method, path, resp.Status, body)
	}
	var answer struct{ Data any }
	if err := json.Unmarshal(body, &answer); err != nil {
		l.t.Fatal(err)
	}
	return answer.Data
}

// task starts a task and waits until it has ended well.
func (l *lab) task(method, path string, form url.Values) {
	l.t.Helper()
	upid, ok := l.call(method, path, form).(string)
	if !ok {
		return // done at once
	}
	node := strings.Split(upid, ":")[1]
	for {
		status := l.call("GET", "/nodes/"+node+"/tasks/"+url.PathEscape(upid)+"/status", nil).(map[string]any)
		if status["status"] == "stopped" {
			if status["exitstatus"] != "OK" {
				l.t.Fatalf("%s %s: %v", method, path, status["exitstatus"])
			}
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (l *lab) ip(vmid int) string { return l.info.Free.Machines[vmid-201] }

// create makes a VM without starting it.
func (l *lab) create(vmid int, extra ...string) {
	l.t.Helper()
	form := url.Values{
		"vmid": {fmt.Sprint(vmid)}, "name": {fmt.Sprintf("node-%d", vmid)}, "cores": {"2"}, "memory": {"2048"},
		"scsi0": {"local-lvm:8"}, "ide2": {"local-lvm:cloudinit"}, "boot": {"order=scsi0"},
		"net0":      {fmt.Sprintf("virtio=BC:24:11:00:00:%02X,bridge=vmbr0", vmid-200)},
		"ipconfig0": {"ip=" + l.ip(vmid) + "/24,gw=" + l.info.Gateway}, "ciuser": {"k3lab"},
		"sshkeys": {strings.ReplaceAll(url.QueryEscape(string(ssh.MarshalAuthorizedKey(l.signer.PublicKey()))), "+", "%20")},
	}
	for i := 0; i < len(extra); i += 2 {
		form.Set(extra[i], extra[i+1])
	}
	l.task("POST", "/nodes/pve1/qemu", form)
}

func (l *lab) power(vmid int, action string) {
	l.t.Helper()
	l.task("POST", fmt.Sprintf("/nodes/pve1/qemu/%d/status/%s", vmid, action), nil)
}

func (l *lab) status(vmid int) string {
	l.t.Helper()
	return l.call("GET", fmt.Sprintf("/nodes/pve1/qemu/%d/status/current", vmid), nil).(map[string]any)["status"].(string)
}

// dial waits until the machine's sshd lets us in.
func (l *lab) dial(vmid int) *ssh.Client {
	l.t.Helper()
	config := &ssh.ClientConfig{User: "k3lab", Auth: []ssh.AuthMethod{ssh.PublicKeys(l.signer)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: time.Second}
	var last error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		c, err := ssh.Dial("tcp", net.JoinHostPort(l.ip(vmid), "22"), config)
		if err == nil {
			return c
		}
		last = err
	}
	console, _ := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(l.info.CAFile)), "machines", fmt.Sprint(vmid), "console.log"))
	l.t.Fatalf("machine %d does not answer ssh: %v\n%s", vmid, last, console)
	return nil
}

// run runs a command on a machine and returns what it prints.
func (l *lab) run(vmid int, command string) string {
	l.t.Helper()
	c := l.dial(vmid)
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		l.t.Fatal(err)
	}
	var errs bytes.Buffer
	s.Stderr = &errs
	out, err := s.Output(command)
	if err != nil {
		l.t.Fatalf("machine %d: %s: %v\n%s%s", vmid, command, err, out, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// put copies a file to a machine.
func (l *lab) put(vmid int, from, to string) {
	l.t.Helper()
	f, err := os.Open(from)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	c := l.dial(vmid)
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		l.t.Fatal(err)
	}
	s.Stdin = f
	if err := s.Run("sudo tee " + to + " >/dev/null"); err != nil {
		l.t.Fatalf("machine %d: copy %s: %v", vmid, from, err)
	}
}

// wants fails the test unless two texts are equal.
func wants(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}
