// Package pve speaks to Proxmox VE's API for what Terraform's provider cannot do.
//
// Here, and in the simulator, "node" means what Proxmox means by it: a
// hypervisor.
package pve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/luthermonson/go-proxmox"

	"github.com/k3lab/k3lab/internal/fault"
)

// Options says where an API is and how to speak to it.
type Options struct {
	Endpoint string // its name in the settings
	URL      string // https://address:8006
	Token    string // user@realm!id=secret
	CAFile   string // PEM; empty: the system's roots
}

// Client speaks to one API.
type Client struct {
	opts Options
	api  *proxmox.Client
}

// VM is a virtual machine as the API lists it.
type VM struct {
	ID      int
	Name    string
	Node    string
	Pool    string
	Running bool
}

// New returns a client. Nothing is sent yet; TLS is always verified.
func New(opts Options) (*Client, error) {
	id, secret, ok := strings.Cut(opts.Token, "=")
	if !ok || !strings.Contains(id, "!") {
		return nil, fault.New(fault.Invalid, opts.Endpoint, "", "api token: it has not the form user@realm!id=secret")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if opts.CAFile != "" {
		pem, err := os.ReadFile(opts.CAFile)
		if err != nil {
			return nil, fault.New(fault.Invalid, opts.Endpoint, "correct ca_file in terraform/vars/proxmox.yaml", "%w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Invalid, opts.Endpoint, "correct ca_file in terraform/vars/proxmox.yaml", "%s holds no certificate", opts.CAFile)
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	api := proxmox.NewClient(strings.TrimRight(opts.URL, "/")+"/api2/json",
		proxmox.WithHTTPClient(&http.Client{Transport: transport, Timeout: 30 * time.Second}),
		proxmox.WithAPIToken(id, secret))
	return &Client{opts, api}, nil
}

// VMs lists all virtual machines the token may see.
func (c *Client) VMs(ctx context.Context) ([]VM, error) {
	cluster, err := c.api.Cluster(ctx)
	if err != nil {
		return nil, c.failed(err)
	}
	found, err := cluster.Resources(ctx, "vm")
	if err != nil {
		return nil, c.failed(err)
	}
	var vms []VM
	for _, r := range found {
		if r.Type == "qemu" {
			vms = append(vms, VM{ID: int(r.VMID), Name: r.Name, Node: r.Node, Pool: r.Pool, Running: r.Status == "running"})
		}
	}
	return vms, nil
}

// Find returns the VM of that ID, and false when there is none.
func (c *Client) Find(ctx context.Context, id int) (VM, bool, error) {
	vms, err := c.VMs(ctx)
	if err != nil {
		return VM{}, false, err
	}
	for _, vm := range vms {
		if vm.ID == id {
			return vm, true, nil
		}
	}
	return VM{}, false, nil
}

// HasPool reports whether there is a pool of that name.
func (c *Client) HasPool(ctx context.Context, name string) (bool, error) {
	pools, err := c.api.Pools(ctx)
	if err != nil {
		return false, c.failed(err)
	}
	for _, p := range pools {
		if p.PoolID == name {
			return true, nil
		}
	}
	return false, nil
}

func (c *Client) failed(err error) error {
	if errors.Is(err, context.Canceled) {
		return err // the API has no part in it
	}
	if proxmox.IsNotAuthorized(err) {
		return fault.New(fault.Unreachable, c.opts.Endpoint, "k3lab env, and look at the token in secrets.sops.yaml", "api: the token is refused: %w", err)
	}
	return fault.New(fault.Unreachable, c.opts.Endpoint, "", "api at %s: %w", c.opts.URL, err)
}
