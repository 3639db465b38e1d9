package op

import (
	"cmp"
	"context"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/pve"
	"github.com/k3lab/k3lab/internal/secrets"
	"github.com/k3lab/k3lab/internal/workspace"
)

// ImportProxmox says where the machines' VMs are looked for. Without a URL they
// are not.
type ImportProxmox struct {
	URL    string
	Token  string // user@realm!id=secret
	CAFile string // empty: the system's authorities
}

// importEndpoint is what the settings call the API.
const importEndpoint = "home"

// carried is what Proxmox carries of the cluster.
type carried struct {
	endpoint    *workspace.ImportedEndpoint
	hypervisors []workspace.ImportedHypervisor
	bridge      string
	vms         map[string]pve.Hardware // by node
}

func (i *importing) carriedBy(node string) (pve.Hardware, bool) {
	if i.infra == nil {
		return pve.Hardware{}, false
	}
	vm, ok := i.infra.vms[node]
	return vm, ok
}

// virtualMachines finds the VM of each node by the MAC address of its interface.
func (i *importing) virtualMachines(ctx context.Context) error {
	p := i.opts.Proxmox
	if p.URL == "" {
		return nil
	}
	i.say("proxmox", "reading "+p.URL)
	if u, err := url.Parse(p.URL); err != nil || u.Scheme != "https" || u.Host == "" {
		return fault.New(fault.Invalid, p.URL, "--proxmox-endpoint https://192.168.10.2:8006", "it is not the address of a Proxmox VE API")
	}
	client, err := pve.New(pve.Options{Endpoint: importEndpoint, URL: p.URL, Token: p.Token, CAFile: p.CAFile})
	if err != nil {
		return err
	}
	all, err := client.Hardware(ctx)
	if err != nil {
		return err
	}
	c := &carried{
		endpoint: &workspace.ImportedEndpoint{Name: importEndpoint, URL: strings.TrimRight(p.URL, "/"), Token: secrets.NewValue(p.Token)},
		vms:      map[string]pve.Hardware{},
	}
	if p.CAFile != "" {
		if c.endpoint.CAPEM, err = os.ReadFile(p.CAFile); err != nil {
			return fault.New(fault.Invalid, p.CAFile, "", "%w", err)
		}
	}
	for _, n := range i.nodes {
		mac := n.at().MAC
		at := slices.IndexFunc(all, func(vm pve.Hardware) bool { return slices.Contains(vm.MACs, mac) })
		if mac == "" || at < 0 {
			i.notice("%s: no VM of %s has its MAC address %s: taken for a machine without a hypervisor.", n.Name, p.URL, mac)
			continue
		}
		vm := all[at]
		if vm.Agent && !client.AgentAnswers(ctx, vm.VM) {
			i.notice("%s: VM %d is to have a guest agent (its option agent), and none answers. Terraform would wait for it in each plan, so the "+
				"machine is described as one without a hypervisor. Install qemu-guest-agent there, or switch the option off, and import again.", n.Name, vm.ID)
			continue
		}
		c.vms[n.Name] = vm
		if n.Role == config.RoleServer && c.bridge == "" {
			c.bridge = vm.Bridge
		}
		if !slices.ContainsFunc(c.hypervisors, func(h workspace.ImportedHypervisor) bool { return h.Name == vm.Node }) {
			c.hypervisors = append(c.hypervisors, workspace.ImportedHypervisor{Name: vm.Node, Storage: cmp.Or(vm.Storage, "local-lvm")})
		}
	}
	if len(c.vms) == 0 {
		return nil // the notices say so; an API that carries nothing is no part of the lab
	}
	i.infra = c
	return nil
}
