package cli

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/op"
)

func (a *app) initCommand() *cobra.Command {
	var opts op.InitOptions
	c := &cobra.Command{
		Use:   "init [DIR]",
		Short: "Write a workspace: settings, Terraform and Ansible files that are yours",
		Long: `Writes a workspace and makes it a git repository. It never overwrites a file that
differs, unless --force is given.

Examples (--example):
  single   one hypervisor, one server
  small    one hypervisor, one server and two agents
  ha       several hypervisors, three servers behind a virtual address, two agents
  metal    machines without a hypervisor`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			opts.Dir = "."
			if a.dir != "" {
				opts.Dir = a.dir
			}
			if len(args) == 1 {
				opts.Dir = args[0]
			}
			result, err := op.Init(opts)
			if err != nil {
				return err
			}
			dir, err := filepath.Abs(opts.Dir)
			if err != nil {
				return err
			}
			for _, f := range result.Files {
				fmt.Fprintln(a.Out, "  "+f)
			}
			for _, n := range result.Notices {
				fmt.Fprintln(a.Out, n)
			}
			fmt.Fprintf(a.Out, "\nThe workspace is %s. Next: describe your lab in\n"+
				"  terraform/vars/nodes.yaml, network.yaml, proxmox.yaml and ansible/group_vars/all.yaml,\n"+
				"then k3lab -C %s validate and k3lab -C %s plan\n", dir, opts.Dir, opts.Dir)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&opts.Example, "example", "small", "what to start from: single, small, ha or metal")
	f.StringVar(&opts.LabName, "name", "", "the lab's name (default: the folder's)")
	f.StringArrayVar(&opts.PublicKeys, "ssh-public-key", nil, "a public key file of yours that may log in (default: those in ~/.ssh)")
	f.StringVar(&opts.Sandbox, "sandbox", "", "fit the settings to this running sandbox")
	f.BoolVar(&opts.Force, "force", false, "overwrite files that differ")
	return c
}
