package infra_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/k3lab/k3lab/internal/infra"
)

// api calls the API as a user with the administrator's token does by hand.
func (r *rig) api(method, path string, form url.Values, data any) {
	r.t.Helper()
	if err := r.call(method, path, form, data); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) call(method, path string, form url.Values, data any) error {
	ca, err := os.ReadFile(r.server.CAFile())
	if err != nil {
		return err
	}
	client := trusting(ca)
	request, err := http.NewRequest(method, "https://"+r.address+"/api2/json"+path, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "PVEAPIToken="+administrator)
	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, path, response.Status)
	}
	answer := struct{ Data any }{data}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	return nil
}

// task calls the API and waits for the task the call starts.
func (r *rig) task(node, method, path string, form url.Values) {
	r.t.Helper()
	var upid string
	r.api(method, path, form, &upid)
	for r.t.Context().Err() == nil {
		var status struct{ Status, Exitstatus string }
		r.api(http.MethodGet, "/nodes/"+node+"/tasks/"+url.PathEscape(upid)+"/status", nil, &status)
		if status.Status == "stopped" {
			if status.Exitstatus != "OK" {
				r.t.Fatalf("%s %s: %s", method, path, status.Exitstatus)
			}
			return
		}
	}
}

type listedVM struct {
	VMID               int
	Name, Node, Status string
	Pool               string
}

func (r *rig) vms() (map[int]listedVM, error) {
	var list []listedVM
	if err := r.call(http.MethodGet, "/cluster/resources?type=vm", nil, &list); err != nil {
		return nil, err
	}
	out := map[int]listedVM{}
	for _, vm := range list {
		out[vm.VMID] = vm
	}
	return out, nil
}

// Find and HasPool make the rig what infra looks for VMs through.
func (r *rig) Find(_ context.Context, _ string, vmid int) (infra.VM, bool, error) {
	all, err := r.vms()
	vm, ok := all[vmid]
	return infra.VM{Name: vm.Name, Hypervisor: vm.Node, Pool: vm.Pool}, ok, err
}

func (r *rig) HasPool(_ context.Context, _, pool string) (bool, error) {
	var pools []struct{ PoolID string }
	err := r.call(http.MethodGet, "/pools", nil, &pools)
	for _, p := range pools {
		if p.PoolID == pool {
			return true, err
		}
	}
	return false, err
}

// trusting returns a client that trusts this authority alone.
func trusting(ca []byte) *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, DisableKeepAlives: true},
	}
}
