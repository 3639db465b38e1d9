package cli

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
	"github.com/k3lab/k3lab/internal/report"
)

// proxmoxToken is the variable the API token is taken from: a command line shows
// to everybody.
const proxmoxToken = "K3LAB_PROXMOX_TOKEN" //nolint:gosec // a name, no token

func (a *app) importCommand() *cobra.Command {
	var opts op.ImportOptions
	var acceptAll bool
	c := &cobra.Command{
		Use:   "import DIR",
		Short: "Read a K3s cluster that is there and write a workspace for it",
		Long: `Reads a K3s cluster that was installed without k3lab, over SSH, and writes a workspace
that describes it. One server is named; the other machines are found by their nodes. Nothing
is changed on any machine, and the first plan in the workspace destroys and restarts nothing.

The user must be root or have sudo without a password. Host keys in ~/.ssh/known_hosts are
taken; others are shown and asked about. With --proxmox-endpoint the machines' VMs are found
in Proxmox VE and taken over by Terraform; the API token is read from ` + proxmoxToken + `.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fault.New(fault.Failed, "", "k3lab import mylab --server root@192.168.10.11", "where the workspace goes is not said, or said twice")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if opts.Server == "" {
				return fault.New(fault.Failed, "", "--server root@192.168.10.11", "which cluster is not said")
			}
			opts.Proxmox.Token = os.Getenv(proxmoxToken)
			if opts.Proxmox.URL != "" && opts.Proxmox.Token == "" {
				return fault.New(fault.Failed, "", "export "+proxmoxToken+"='user@realm!id=secret'", "there is no API token for %s", opts.Proxmox.URL)
			}
			opts.Dir = args[0]
			view := a.view()
			opts.Reporter = view
			opts.AcceptHostKey = func(k op.HostKey) (bool, error) { return a.acceptHostKey(c.Context(), view, k, acceptAll) }
			result, err := op.Import(c.Context(), opts)
			view.Close()
			if err != nil {
				return err
			}
			for _, n := range result.Notices {
				fmt.Fprintln(a.Out, n)
			}
			fmt.Fprintf(a.Out, "\nFound %s. The workspace is %s.\n"+
				"Nothing of the cluster is managed yet. Next: k3lab -C %s plan, and docs/import.md\n",
				result.Summary, result.Workspace, args[0])
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&opts.Server, "server", "", "any one server of the cluster: [USER@]ADDRESS")
	f.StringVar(&opts.KeyFile, "ssh-key", "", "the private key to log in with (default: that in ~/.ssh)")
	f.BoolVar(&acceptAll, "accept-host-keys", false, "accept host keys that are not known yet, and show them")
	f.StringVar(&opts.LabName, "name", "", "the lab's name (default: the folder's)")
	f.StringVar(&opts.Proxmox.URL, "proxmox-endpoint", "", "Proxmox VE API that carries the machines: https://192.168.10.2:8006")
	f.StringVar(&opts.Proxmox.CAFile, "proxmox-ca", "", "its certificate authority, a copy of /etc/pve/pve-root-ca.pem (default: the system's)")
	return c
}

// acceptHostKey shows a key and asks, where a person can be asked.
func (a *app) acceptHostKey(ctx context.Context, view *report.Hub, k op.HostKey, all bool) (bool, error) {
	show := func() error {
		_, err := fmt.Fprintf(a.Err, "%s shows at %s the host key %s %s\n", k.Machine, k.Address, k.Type, k.Fingerprint)
		return err
	}
	if all {
		return true, view.Pause(show)
	}
	if !a.interactive() {
		return false, nil // the error shows it
	}
	return a.ask(ctx, view, show, "Is that the machine?", "yes")
}
