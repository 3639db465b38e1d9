package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
	"github.com/k3lab/k3lab/internal/step"
)

func (a *app) osCommand() *cobra.Command {
	c := &cobra.Command{Use: "os", Short: "Look after the machines' operating system"}
	c.AddCommand(a.osUpdateCommand())
	return c
}

func (a *app) osUpdateCommand() *cobra.Command {
	var opts op.UpdateOptions
	var yes, only bool
	c := &cobra.Command{
		Use:   "update",
		Short: "Install newer packages, and reboot what needs it, one machine after the other",
		Long: "Installs what the archives of each machine have that is newer. A machine that has to\n" +
			"be rebooted for it, or for an earlier update, is cordoned and drained before, and is\n" +
			"whole again before the next one. Agents come first, then servers one by one, each\n" +
			"only while all others vote in the datastore.\n\n" +
			"A failure ends it. Run again it goes on from there; a node that you have cordoned\n" +
			"yourself stays so.\n\n" + exitCodes,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !yes && !only && !a.interactive() {
				return fault.New(fault.Failed, "", "k3lab os update --plan, then --yes", "os update asks before it changes anything, and nobody can be asked here")
			}
			view := a.view()
			opts.Dir, opts.Reporter = a.dir, view
			var plan step.Plan
			confirm := a.confirming(c.Context(), view, yes)
			opts.Confirm = func(p step.Plan) (bool, error) {
				plan = p
				if only {
					return false, nil
				}
				return confirm(p)
			}
			result, err := op.UpdateOS(c.Context(), opts)
			view.Close()
			if err != nil {
				return err
			}
			if only {
				return a.showRollPlan(plan, "Every machine is up to date.", true)
			}
			return a.showRoll(result.Changes, result.Declined, "Every machine is up to date.")
		},
	}
	f := c.Flags()
	f.StringSliceVar(&opts.Nodes, "node", nil, "only these nodes (default: all)")
	f.IntVar(&opts.AtOnce, "at-once", 1, "how many agents are updated at once")
	f.DurationVar(&opts.Drain.Timeout, "drain-timeout", op.DefaultDrainTimeout, "how long pods have to leave a node; disruption budgets are respected")
	f.BoolVar(&opts.Drain.KeepEmptyDir, "keep-emptydir", false, "fail rather than evict a pod with an emptyDir volume, whose content goes with it")
	f.BoolVar(&opts.Drain.DeleteUnmanaged, "delete-unmanaged", false, "evict also pods that no controller would make again")
	f.DurationVar(&opts.Timeout, "timeout", op.DefaultTimeout, "how long to wait for a machine to boot, and then for its node to be whole")
	f.BoolVar(&only, "plan", false, "show what would be done, and do nothing (exits 2 when there is something)")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	a.addJSON(c, "print events and changes as JSON lines")
	return c
}

// showRollPlan shows what a rolling operation would do.
func (a *app) showRollPlan(plan step.Plan, nothing string, diff bool) error {
	changes := plan.Changes()
	var err error
	switch {
	case a.json:
		err = writeJSON(a.Out, map[string]any{"changes": nonNil(changes)})
	case len(changes) == 0:
		_, err = fmt.Fprintln(a.Out, nothing)
	default:
		err = writePlan(a.Out, changes, diff)
	}
	if err == nil && len(changes) > 0 {
		return &silentError{fault.Changes}
	}
	return err
}

// showRoll shows what a rolling operation has done.
func (a *app) showRoll(made []step.Change, declined bool, nothing string) error {
	switch {
	case a.json:
		return writeJSON(a.Out, map[string]any{"changes": nonNil(made)})
	case declined:
		fmt.Fprintln(a.Out, "Nothing was changed.")
	case len(made) == 0:
		fmt.Fprintln(a.Out, nothing)
	}
	return nil
}
