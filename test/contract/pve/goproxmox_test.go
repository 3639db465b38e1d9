package pve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/luthermonson/go-proxmox"
)

// http returns a client that trusts the cluster's authority.
func (c *cluster) http(t *testing.T) *http.Client {
	t.Helper()
	ca, err := os.ReadFile(c.caFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (c *cluster) goClient(t *testing.T) *proxmox.Client {
	t.Helper()
	return proxmox.NewClient(c.url+"/api2/json", proxmox.WithHTTPClient(c.http(t)), proxmox.WithAPIToken(c.token.Name(), c.token.Secret))
}

// waitTask waits for a task and fails the test when it failed; go-proxmox's
// Wait returns nil either way.
func waitTask(ctx context.Context, t *testing.T, task *proxmox.Task) {
	t.Helper()
	if err := task.Wait(ctx, 50*time.Millisecond, time.Minute); err != nil {
		t.Fatal(err)
	}
	if task.IsFailed {
		t.Fatalf("task %s: %s", task.UPID, task.ExitStatus)
	}
}

// config reads a VM's configuration raw, as text by key.
func (c *cluster) config(t *testing.T, node string, vmid int) map[string]string {
	t.Helper()
	var body struct{ Data map[string]any }
	c.getJSON(t, fmt.Sprintf("/nodes/%s/qemu/%d/config", node, vmid), &body)
	out := map[string]string{}
	for k, v := range body.Data {
		out[k] = fmt.Sprint(v)
	}
	return out
}

func (c *cluster) getJSON(t *testing.T, path string, into any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+"/api2/json"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "PVEAPIToken="+c.tokenText())
	res, err := c.http(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s", path, res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
}

// remove deletes what a path names and waits for the task.
func (c *cluster) remove(t *testing.T, path string) {
	t.Helper()
	ctx := within(t, time.Minute)
	var upid proxmox.UPID
	if err := c.goClient(t).Delete(ctx, path, &upid); err != nil {
		t.Fatal(err)
	}
	waitTask(ctx, t, proxmox.NewTask(upid, c.goClient(t)))
}

// leftovers lists every VM, volume, pool, security group, ipset and alias.
func (c *cluster) leftovers(t *testing.T) []string {
	t.Helper()
	out := []string{}
	paths := map[string]string{
		"/cluster/resources?type=vm": "id", "/pools": "poolid", "/cluster/firewall/groups": "group",
		"/cluster/firewall/ipset": "name", "/cluster/firewall/aliases": "name",
	}
	for _, node := range []string{"pve1", "pve2", "pve3"} {
		for _, storage := range []string{"local", "local-lvm", "local-zfs"} {
			paths["/nodes/"+node+"/storage/"+storage+"/content"] = "volid"
		}
	}
	for path, key := range paths {
		var body struct{ Data []map[string]any }
		c.getJSON(t, path, &body)
		for _, o := range body.Data {
			if k, ok := o[key].(string); ok {
				out = append(out, path+" "+k)
			}
		}
	}
	sort.Strings(out)
	return out
}

// makeVMs makes VMs with go-proxmox.
func makeVMs(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	for i, node := range []string{"pve1", "pve2", "pve3"} {
		n, err := c.goClient(t).Node(ctx, node)
		if err != nil {
			t.Fatal(err)
		}
		task, err := n.NewVirtualMachine(ctx, 101+i,
			proxmox.VirtualMachineOption{Name: "name", Value: fmt.Sprintf("machine-%d", i+1)},
			proxmox.VirtualMachineOption{Name: "memory", Value: 1024},
			proxmox.VirtualMachineOption{Name: "onboot", Value: true},
			proxmox.VirtualMachineOption{Name: "scsi0", Value: "local-lvm:4"},
			proxmox.VirtualMachineOption{Name: "net0", Value: "virtio,bridge=vmbr0"},
			proxmox.VirtualMachineOption{Name: "agent", Value: "1"},
			proxmox.VirtualMachineOption{Name: "ipconfig0", Value: fmt.Sprintf("ip=192.0.2.%d/24", 11+i)},
		)
		if err != nil {
			t.Fatal(err)
		}
		waitTask(ctx, t, task)
	}
}

// listWithGo lists the cluster's VMs as "vmid name node status".
func listWithGo(ctx context.Context, t *testing.T, c *cluster) []string {
	t.Helper()
	cl, err := c.goClient(t).Cluster(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := cl.Resources(ctx, "vm")
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, r := range rs {
		out = append(out, fmt.Sprintf("%d %s %s %s", r.VMID, r.Name, r.Node, r.Status))
	}
	sort.Strings(out)
	return out
}

func TestGoProxmox(t *testing.T) {
	c := newCluster(t)
	ctx := within(t, time.Minute)
	makeVMs(ctx, t, c)
	vm := c.vm(ctx, t, "pve1", 101)
	steps := []struct {
		name string
		do   func() (*proxmox.Task, error)
	}{
		{"start", func() (*proxmox.Task, error) { return vm.Start(ctx) }},
		{"snapshot", func() (*proxmox.Task, error) { return vm.NewSnapshot(ctx, "before") }},
		{"resize", func() (*proxmox.Task, error) { return vm.ResizeDisk(ctx, "scsi0", "+2G") }},
		{"reboot", func() (*proxmox.Task, error) { return vm.Reboot(ctx) }},
		{"shutdown", func() (*proxmox.Task, error) { return vm.Shutdown(ctx) }},
	}
	for _, s := range steps {
		task, err := s.do()
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		waitTask(ctx, t, task)
	}
	snaps, err := vm.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range snaps {
		names = append(names, s.Name)
	}
	if d := cmp.Diff([]string{"before", "current"}, names); d != "" {
		t.Errorf("snapshots (-want +got):\n%s", d)
	}
	want := []string{"101 machine-1 pve1 stopped", "102 machine-2 pve2 stopped", "103 machine-3 pve3 stopped"}
	if d := cmp.Diff(want, listWithGo(ctx, t, c)); d != "" {
		t.Errorf("VMs (-want +got):\n%s", d)
	}
	if got, want := c.config(t, "pve1", 101)["scsi0"], "local-lvm:vm-101-disk-0,size=6G"; got != want {
		t.Errorf("scsi0 is %q, want %q", got, want)
	}
}

// TestGoProxmoxErrors: the reason phrase is what the client reports.
func TestGoProxmoxErrors(t *testing.T) {
	c := newCluster(t)
	ctx := within(t, time.Minute)
	n, err := c.goClient(t).Node(ctx, "pve1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.VirtualMachine(ctx, 999)
	if want := "Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("missing VM: %v, want %q", err, want)
	}
	if permissions, err := c.goClient(t).Permissions(ctx, nil); err != nil || len(permissions["/"]) == 0 {
		t.Errorf("permissions: %v, %v", permissions, err)
	}
}
