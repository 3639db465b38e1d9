package op

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/sandbox"
)

// SandboxOptions are the options of SandboxUp.
type SandboxOptions struct {
	Name            string
	Machines        string // nspawn or none
	Hypervisors     int
	HypervisorNames []string // instead of Hypervisors; empty: pve1 and on
	CIDR            string
	Internet        bool
	Reporter        report.Reporter
}

// Sandbox is a sandbox as it is found.
type Sandbox sandbox.State

// SandboxUp starts a sandbox, or starts its API again where only that has died.
func SandboxUp(ctx context.Context, opts SandboxOptions) (*Sandbox, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	info, err := sandbox.Up(ctx, sandbox.Options{
		Name: opts.Name, Machines: sandbox.Kind(opts.Machines), Hypervisors: opts.Hypervisors,
		HypervisorNames: opts.HypervisorNames, CIDR: opts.CIDR, Internet: opts.Internet, ServeCommand: []string{self, "sandbox", "serve"},
	}, opts.Reporter)
	if err != nil {
		return nil, err
	}
	return SandboxStatus(ctx, info.Name)
}

// SandboxDown removes a sandbox with everything it made.
func SandboxDown(ctx context.Context, name string, r report.Reporter) error {
	return sandbox.Down(ctx, name, r)
}

// SandboxStatus finds a sandbox.
func SandboxStatus(ctx context.Context, name string) (*Sandbox, error) {
	s, err := sandbox.Status(ctx, name)
	return (*Sandbox)(s), err
}

// SandboxServe serves a sandbox's API until the context ends.
func SandboxServe(ctx context.Context, name string) error { return sandbox.Serve(ctx, name) }

// Text shows the sandbox to a person; the API token stays hidden.
func (s *Sandbox) Text() string {
	var out strings.Builder
	api := "answers"
	if !s.Answers {
		api = "does not answer (try: k3lab sandbox up " + s.Name + ")"
	}
	fmt.Fprintf(&out, "sandbox %s\n  Proxmox API   %s, %s\n", s.Name, s.Endpoint, api)
	if s.CIDR != "" {
		reach := "no traffic leaves this computer"
		if s.Internet {
			reach = "open to the internet"
		}
		fmt.Fprintf(&out, "  network       %s, gateway %s, %s\n", s.CIDR, s.Gateway, reach)
	}
	var names []string
	for _, h := range s.Hypervisors {
		names = append(names, h.Name)
	}
	fmt.Fprintf(&out, "  hypervisors   %s\n  images        any image URL gives the sandbox's own root image\n", strings.Join(names, ", "))
	if len(s.VMs) > 0 {
		out.WriteString("\n")
		table := tabwriter.NewWriter(&out, 2, 0, 3, ' ', 0)
		fmt.Fprintln(table, "VM\tNAME\tHYPERVISOR\tSTATUS")
		for _, vm := range s.VMs {
			status := vm.Status
			if vm.Template {
				status = "template"
			}
			fmt.Fprintf(table, "%d\t%s\t%s\t%s\n", vm.VMID, vm.Name, vm.Hypervisor, status)
		}
		_ = table.Flush() // to a string
	}
	return out.String()
}
