package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
	"github.com/k3lab/k3lab/internal/step"
)

func (a *app) destroyCommand() *cobra.Command {
	var opts op.DestroyOptions
	var name string
	c := &cobra.Command{
		Use:   "destroy",
		Short: "Remove every VM and everything else it made on Proxmox",
		Long: "Shows what will be removed and asks for the lab's name. The workspace's settings and\n" +
			"secrets stay; metal machines are not touched.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if name == "" && !a.interactive() {
				return fault.New(fault.Failed, "", "k3lab destroy --name LAB", "destroy asks for the lab's name, and nobody can be asked here")
			}
			view := a.view()
			opts.Dir, opts.Reporter = a.dir, view
			opts.Confirm = func(lab string, plan step.Plan) (bool, error) {
				if name != "" {
					if name != lab {
						return false, fault.New(fault.Failed, lab, "k3lab destroy --name "+lab, "the lab is not called %q", name)
					}
					return true, nil
				}
				return a.ask(c.Context(), view, func() error { return writePlan(a.Out, plan.Changes(), false) },
					"This removes the lab and the data on its machines.", lab)
			}
			removed, err := op.Destroy(c.Context(), opts)
			view.Close()
			if err != nil {
				return err
			}
			if !removed {
				fmt.Fprintln(a.Out, "Nothing was removed.")
			}
			return nil
		},
	}
	a.labFlags(c, &opts.LabOptions)
	c.Flags().StringVar(&name, "name", "", "the lab's name, instead of being asked for it")
	return c
}
