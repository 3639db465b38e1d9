package cli

import (
	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
	"github.com/k3lab/k3lab/internal/step"
)

func (a *app) resetCommand() *cobra.Command {
	var opts op.ResetOptions
	var name string
	var only bool
	const nothing = "There is nothing to take off the machines."
	c := &cobra.Command{
		Use:   "reset",
		Short: "Take K3s off the machines, which stay",
		Long: "Stops K3s and removes it with its data, what containers have left, the virtual address\n" +
			"and k3lab's firewall. Packages, users, and settings of kernel and sshd stay. Shows what\n" +
			"goes and asks for the lab's name. k3lab up makes a new cluster on the same machines.\n\n" +
			"With --node the cluster goes on: it forgets these nodes, their datastore members\n" +
			"included. That is refused where it would lose its quorum.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			named := c.Flags().Changed("name")
			if !named && !only && !a.interactive() {
				return fault.New(fault.Failed, "", "k3lab reset --plan, then --name LAB", "reset asks for the lab's name, and nobody can be asked here")
			}
			view := a.view()
			opts.Dir, opts.Reporter = a.dir, view
			var plan step.Plan
			opts.Confirm = func(lab string, p step.Plan) (bool, error) {
				plan = p
				switch {
				case only:
					return false, nil
				case named && name != lab:
					return false, fault.New(fault.Failed, lab, "k3lab reset --name "+lab, "the lab is not called %q", name)
				case named:
					return true, nil
				}
				return a.ask(c.Context(), view, func() error { return writePlan(a.Out, p.Changes(), false) },
					"This removes K3s and its data from these machines.", lab)
			}
			result, err := op.Reset(c.Context(), opts)
			view.Close()
			if err != nil {
				return err
			}
			if only {
				return a.showRollPlan(plan, nothing, false)
			}
			return a.showRoll(result.Changes, result.Declined, nothing)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&opts.Nodes, "node", nil, "only these nodes (default: all, and the cluster with them)")
	f.StringVar(&name, "name", "", "the lab's name, instead of being asked for it")
	f.BoolVar(&only, "plan", false, "show what would go, and do nothing (exits 2 when there is something)")
	a.addJSON(c, "print events and changes as JSON lines")
	return c
}
