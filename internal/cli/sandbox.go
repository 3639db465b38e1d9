package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/op"
)

func (a *app) sandboxCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "sandbox",
		Short: "An embedded Proxmox VE API whose VMs are real machines on this computer",
	}
	c.AddCommand(a.sandboxUp(), a.sandboxDown(), a.sandboxStatus(), a.sandboxServe())
	return c
}

func (a *app) sandboxUp() *cobra.Command {
	var opts op.SandboxOptions
	c := &cobra.Command{
		Use:   "up [NAME]",
		Short: "Start a sandbox",
		Long: "Starts an embedded Proxmox VE API on the loopback address. Its VMs are systemd-nspawn\n" +
			"machines in a network of their own (root, Linux), or with --machines none only entries\n" +
			"of the API (no root needed). It goes on running until k3lab sandbox down.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			view := a.view()
			opts.Name, opts.Reporter = sandboxName(args), view
			s, err := op.SandboxUp(c.Context(), opts)
			view.Close()
			if err != nil {
				return err
			}
			return a.showSandbox(s)
		},
	}
	f := c.Flags()
	f.StringVar(&opts.Machines, "machines", "nspawn", "what a VM is: nspawn (a real machine) or none")
	f.IntVar(&opts.Hypervisors, "hypervisors", 3, "number of hypervisors")
	f.StringArrayVar(&opts.HypervisorNames, "hypervisor", nil, "the name of a hypervisor, once for each (default: pve1 and on)")
	f.StringVar(&opts.CIDR, "cidr", "", "network of the machines (default: a free /24 of 198.18.0.0/15)")
	f.BoolVar(&opts.Internet, "internet", false, "let the machines reach the internet, for image pulls")
	a.addJSON(c, "print events and the result as JSON lines")
	return c
}

func (a *app) sandboxDown() *cobra.Command {
	return &cobra.Command{
		Use:   "down [NAME]",
		Short: "Remove a sandbox with everything it made",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			view := a.view()
			defer view.Close()
			return op.SandboxDown(c.Context(), sandboxName(args), view)
		},
	}
}

func (a *app) sandboxStatus() *cobra.Command {
	c := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Show a sandbox: its API, its network and its VMs",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := op.SandboxStatus(c.Context(), sandboxName(args))
			if err != nil {
				return err
			}
			return a.showSandbox(s)
		},
	}
	a.addJSON(c, "print it as JSON")
	return c
}

// sandboxServe is what sandbox up starts in the background.
func (a *app) sandboxServe() *cobra.Command {
	return &cobra.Command{
		Use:    "serve NAME",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(c *cobra.Command, args []string) error { return op.SandboxServe(c.Context(), args[0]) },
	}
}

func sandboxName(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	return "default"
}

func (a *app) showSandbox(s *op.Sandbox) error {
	if a.json {
		return writeJSON(a.Out, s)
	}
	_, err := fmt.Fprint(a.Out, s.Text())
	return err
}
