package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
	"github.com/k3lab/k3lab/internal/step"
)

func (a *app) lockCommand() *cobra.Command {
	var opts op.LockOptions
	var yes bool
	c := &cobra.Command{
		Use:   "lock",
		Short: "Write down the version of K3s and the digests of its files",
		Long: "Writes the digests that the release of K3s publishes into k3lab.lock; from then on\n" +
			"no other files are taken. With --k3s-channel the version in the settings becomes the\n" +
			"one that the channel stands for now. Shows the change and asks first.\n\n" +
			"A version that is older, or more than one minor version newer, is refused: a cluster\n" +
			"could not follow.",
		Example: "  k3lab lock                         # the version in the settings\n" +
			"  k3lab lock --k3s-channel stable    # or latest, or v1.36",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !yes && !a.interactive() {
				return fault.New(fault.Failed, "", "k3lab lock --yes", "lock asks before it changes anything, and nobody can be asked here")
			}
			view := a.view()
			opts.Dir, opts.Reporter = a.dir, view
			opts.Confirm = func(changes []step.Change) (bool, error) {
				show := func() error { return writePlan(a.Out, changes, true) }
				switch {
				case a.json:
					return true, nil
				case yes:
					return true, view.Pause(show)
				}
				return a.ask(c.Context(), view, show, "Write this?", "yes")
			}
			result, err := op.Lock(c.Context(), opts)
			view.Close()
			if err != nil {
				return err
			}
			return a.showLock(result)
		},
	}
	c.Flags().StringVar(&opts.Channel, "k3s-channel", "", "take the version this channel of K3s stands for now: stable, latest, v1.36, …")
	c.Flags().BoolVar(&opts.Force, "force", false, "also a version no cluster could follow to, and digests other than the locked ones")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	a.addJSON(c, "print the changes as JSON")
	return c
}

func (a *app) showLock(result *op.LockResult) error {
	switch {
	case a.json:
		result.Changes = nonNil(result.Changes)
		return writeJSON(a.Out, result)
	case result.Declined:
		fmt.Fprintln(a.Out, "Nothing was changed.")
	case len(result.Changes) == 0:
		fmt.Fprintf(a.Out, "No changes: K3s %s is locked as it is published.\n", result.Version)
	default:
		fmt.Fprintf(a.Out, "\nK3s %s is locked. Commit it; k3lab plan shows what it changes on the machines.\n", result.Version)
	}
	return nil
}
