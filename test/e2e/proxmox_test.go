package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"testing"
	"time"
)

// proxmox speaks to the sandbox's API the way any client would.
type proxmox struct {
	t      *testing.T
	url    string
	token  string
	client *http.Client
}

func newProxmox(t *testing.T, s sandbox) *proxmox {
	t.Helper()
	pem, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("the sandbox's CA file holds no certificate")
	}
	return &proxmox{t, s.URL + "/api2/json", s.Token, &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
	}}
}

func (p *proxmox) call(method, path string, into any) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, p.url+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "PVEAPIToken="+p.token)
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("%s %s: %s %v\n%s", method, path, resp.Status, err, body)
	}
	if into != nil {
		if err := json.Unmarshal(body, &struct{ Data any }{into}); err != nil {
			p.t.Fatalf("%s %s: %v\n%s", method, path, err, body)
		}
	}
}

type vm struct {
	VMID   int    `json:"vmid"`
	Name   string `json:"name"`
	Node   string `json:"node"`
	Status string `json:"status"`
	Type   string `json:"type"`
}

func (p *proxmox) find(name string) vm {
	p.t.Helper()
	v, there := p.look(name)
	if !there {
		p.t.Fatalf("no VM is called %s", name)
	}
	return v
}

func (p *proxmox) has(name string) bool {
	p.t.Helper()
	_, there := p.look(name)
	return there
}

func (p *proxmox) look(name string) (vm, bool) {
	p.t.Helper()
	var vms []vm
	p.call("GET", "/cluster/resources?type=vm", &vms)
	for _, v := range vms {
		if v.Name == name {
			return v, true
		}
	}
	return vm{}, false
}

// power sends a power command and waits until the VM has the state.
func (p *proxmox) power(name, command, state string) {
	p.t.Helper()
	v := p.find(name)
	p.call("POST", "/nodes/"+v.Node+"/qemu/"+itoa(v.VMID)+"/status/"+command, nil)
	eventually(p.t, 30*time.Second, name+" is "+state, func() bool { return p.find(name).Status == state })
}
