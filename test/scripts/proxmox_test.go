package scripts

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/rogpeppe/go-internal/testscript"
)

// sandbox is what sandbox.json says that scripts need.
type sandbox struct {
	Endpoint string
	CAFile   string `json:"ca_file"`
	Token    string
	PID      int
}

func readSandbox(ts *testscript.TestScript, name string) sandbox {
	text, err := os.ReadFile(filepath.Join(ts.Getenv("K3LAB_SANDBOX_DIR"), name, "sandbox.json"))
	ts.Check(err)
	var s sandbox
	ts.Check(json.Unmarshal(text, &s))
	return s
}

// call makes a call of the API as any client would and returns its data.
func (s sandbox) call(ts *testscript.TestScript, method, path string, body []byte) json.RawMessage {
	pem, err := os.ReadFile(s.CAFile)
	ts.Check(err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		ts.Fatalf("%s holds no certificate", s.CAFile)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.Endpoint+"/api2/json"+path, bytes.NewReader(body))
	ts.Check(err)
	req.Header.Set("Authorization", "PVEAPIToken="+s.Token)
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}}
	resp, err := client.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if resp.StatusCode != http.StatusOK {
		ts.Fatalf("%s %s: %s\n%s", method, path, resp.Status, text)
	}
	var answer struct{ Data json.RawMessage }
	ts.Check(json.Unmarshal(text, &answer))
	return answer.Data
}

func proxmox(ts *testscript.TestScript, args []string) {
	var body []byte
	if len(args) == 4 {
		body = []byte(ts.ReadFile(args[3]))
	}
	fmt.Fprintln(ts.Stdout(), string(readSandbox(ts, args[0]).call(ts, args[1], args[2], body)))
}

// machinesOf adds every VM of a sandbox with its settings and its power.
func machinesOf(ts *testscript.TestScript, name string, out map[string]string) {
	s := readSandbox(ts, name)
	var vms []struct {
		VMID         int
		Node, Status string
	}
	ts.Check(json.Unmarshal(s.call(ts, "GET", "/cluster/resources?type=vm", nil), &vms))
	for _, vm := range vms {
		out[fmt.Sprintf("VM %d", vm.VMID)] = vm.Status + " " + string(s.call(ts, "GET", fmt.Sprintf("/nodes/%s/qemu/%d/config", vm.Node, vm.VMID), nil))
	}
}

// killAPI kills the process that serves a sandbox's API, as a crash would.
func killAPI(ts *testscript.TestScript, args []string) {
	s := readSandbox(ts, args[0])
	ts.Check(syscall.Kill(s.PID, syscall.SIGKILL))
	address := strings.TrimPrefix(s.Endpoint, "https://")
	eventually(ts, []string{"10s", "bash", "-c", "! (: < /dev/tcp/" + strings.ReplaceAll(address, ":", "/") + ") 2>/dev/null"})
}

// layouts are workspaces as people have them.
const layouts = "../../internal/config/testdata/layouts"

// layout copies the settings of a layout into a workspace and points each of
// its endpoints at a sandbox: URL, CA and token. Nothing else of them changes.
func layout(ts *testscript.TestScript, args []string) {
	from, to := filepath.Join(layouts, args[0]), ts.MkAbs(args[1])
	for _, file := range []string{"terraform/vars/nodes.yaml", "terraform/vars/network.yaml", "terraform/vars/proxmox.yaml", "ansible/group_vars/all.yaml"} {
		text, err := os.ReadFile(filepath.Join(from, file))
		ts.Check(err)
		ts.Check(os.WriteFile(filepath.Join(to, file), text, 0o644))
	}
	for _, pair := range args[2:] {
		endpoint, name, _ := strings.Cut(pair, "=")
		s := readSandbox(ts, name)
		ca, err := os.ReadFile(s.CAFile)
		ts.Check(err)
		ts.Check(os.MkdirAll(filepath.Join(to, "terraform/ca"), 0o755))
		ts.Check(os.WriteFile(filepath.Join(to, "terraform/ca", endpoint+".pem"), ca, 0o644))
		pointAt(ts, filepath.Join(to, "terraform/vars/proxmox.yaml"), endpoint, s)
		ts.Setenv("TOKEN", s.Token)
		ts.Check(ts.Exec("bash", "-c", `printf %s "$TOKEN" | k3lab -C "$0" secrets set proxmox_api_tokens."$1"`, to, endpoint))
		ts.Setenv("TOKEN", "")
	}
}

func pointAt(ts *testscript.TestScript, file, endpoint string, s sandbox) {
	text, err := os.ReadFile(file)
	ts.Check(err)
	var settings yaml.MapSlice
	ts.Check(yaml.UnmarshalWithOptions(text, &settings, yaml.UseOrderedMap()))
	for _, item := range settings {
		if item.Key != "endpoints" {
			continue
		}
		for i, e := range item.Value.(yaml.MapSlice) {
			if e.Key == endpoint {
				item.Value.(yaml.MapSlice)[i].Value = yaml.MapSlice{
					{Key: "url", Value: s.Endpoint}, {Key: "ca_file", Value: "terraform/ca/" + endpoint + ".pem"},
				}
			}
		}
	}
	text, err = yaml.Marshal(settings)
	ts.Check(err)
	ts.Check(os.WriteFile(file, text, 0o644))
}
