package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

func (a *app) appsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "apps",
		Short: "Show and change the applications in the cluster",
		Long: "Every folder of kubernetes/apps is one app: a chart, a kustomization or plain\n" +
			"manifests. k3lab plan and up look after all of them; these commands concern them alone.",
	}
	c.AddCommand(a.appsListCommand(), a.appsDiffCommand(), a.appsApplyCommand(), a.appsRollbackCommand(), a.appsVendorCommand())
	return c
}

func (a *app) appsListCommand() *cobra.Command {
	var opts op.AppsOptions
	c := &cobra.Command{
		Use:   "list",
		Short: "Show all apps and how they are",
		Long: "Shows the apps of the workspace and those that are only in the cluster, with the\n" +
			"revision that is installed and what is not healthy.\n\nExits 6 when something is not.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			view := a.view()
			opts.Dir, opts.Reporter = a.dir, view
			states, err := op.ListApps(c.Context(), opts)
			view.Close()
			if err != nil {
				return err
			}
			if a.json {
				err = writeJSON(a.Out, map[string]any{"apps": nonNil(states)})
			} else {
				err = writeApps(a.Out, states)
			}
			if err != nil {
				return err
			}
			for _, s := range states {
				if s.Problem != "" {
					return &silentError{fault.Unhealthy}
				}
			}
			return nil
		},
	}
	a.addJSON(c, "print the apps as one JSON document")
	return c
}

func writeApps(w io.Writer, states []op.AppState) error {
	if len(states) == 0 {
		_, err := fmt.Fprintln(w, "No apps: kubernetes/apps holds none.")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "APP\tNAMESPACE\tCHART\tREVISION\tSTATUS\tHEALTH")
	for _, s := range states {
		revision := "-"
		if s.Revision > 0 {
			revision = strconv.Itoa(s.Revision)
		}
		name := cmp.Or(s.Release, s.App)
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", name, orDash(s.Namespace), orDash(s.Chart), revision, s.Status, cmp.Or(s.Problem, "healthy"))
	}
	return table.Flush()
}

func (a *app) appsDiffCommand() *cobra.Command {
	var opts op.AppsOptions
	var diff bool
	c := &cobra.Command{
		Use:   "diff [APP...]",
		Short: "Show what applying the apps would change",
		Long: "Shows for each object what applying it would change, as the API itself says, and\n" +
			"changes nothing. Of Secrets it shows which keys differ, never a value.\n\n" +
			"Exits 0 when there is nothing to change and 2 when there is.",
		RunE: func(c *cobra.Command, args []string) error {
			view := a.view()
			opts.Dir, opts.Reporter, opts.Names = a.dir, view, args
			plan, refused := op.DiffApps(c.Context(), opts)
			view.Close()
			if refused != nil && plan == nil {
				return refused
			}
			var err error
			if a.json {
				err = writeJSON(a.Out, map[string]any{"changes": nonNil(plan.Changes())})
			} else {
				err = writePlan(a.Out, plan.Changes(), diff)
			}
			if err := cmp.Or(err, refused); err != nil {
				return err
			}
			if !plan.Empty() {
				return &silentError{fault.Changes}
			}
			return nil
		},
	}
	a.addJSON(c, "print events and changes as JSON lines")
	c.Flags().BoolVar(&diff, "diff", true, "show what changes in objects")
	return c
}

func (a *app) appsApplyCommand() *cobra.Command {
	var opts op.AppsOptions
	var yes, deleteVolumes bool
	c := &cobra.Command{
		Use:   "apply [APP...]",
		Short: "Make the apps what their folders say",
		Long: "Shows the plan, asks, makes exactly these changes and waits until the apps are\n" +
			"healthy. One that does not become healthy is put back to its last good revision.\n\n" + exitCodes,
		RunE: func(c *cobra.Command, args []string) error {
			if !yes && !a.interactive() {
				return fault.New(fault.Failed, "", "k3lab apps diff, then k3lab apps apply --yes", "apply asks before it changes anything, and nobody can be asked here")
			}
			view := a.view()
			opts.Dir, opts.Reporter, opts.Names = a.dir, view, args
			opts.Confirm = a.sparing(c.Context(), view, yes, deleteVolumes)
			changes, declined, err := op.ApplyApps(c.Context(), opts)
			view.Close()
			switch {
			case err != nil:
				return err
			case a.json:
				return writeJSON(a.Out, map[string]any{"changes": changes, "declined": declined})
			case declined:
				fmt.Fprintln(a.Out, "Nothing was changed.")
			case changes == 0:
				fmt.Fprintln(a.Out, "No changes: the apps are as their folders say.")
			}
			return nil
		},
	}
	a.addJSON(c, "print events as JSON lines")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	deleteVolumesFlag(c, &deleteVolumes)
	return c
}

func deleteVolumesFlag(c *cobra.Command, set *bool) {
	c.Flags().BoolVar(set, "delete-volumes", false, "with --yes: also where an app's data is lost for good")
}

// sparing confirms a plan as confirming does. Where data would be lost it asks once
// more, and --yes alone is not enough.
func (a *app) sparing(ctx context.Context, view *report.Hub, yes, deleteVolumes bool) func(step.Plan) (bool, error) {
	return func(plan step.Plan) (bool, error) {
		var lost []string
		for _, c := range plan.Changes() {
			lost = append(lost, c.Destroys...)
		}
		if yes && len(lost) > 0 && !deleteVolumes {
			return false, fault.New(fault.Failed, "", "the same with --delete-volumes, or put the app back into the workspace",
				"this would be lost for good, and --yes alone does not allow it: %s", strings.Join(lost, ", "))
		}
		ok, err := a.confirming(ctx, view, yes)(plan)
		if !ok || err != nil || yes || len(lost) == 0 {
			return ok, err
		}
		show := func() error {
			_, err := fmt.Fprintln(a.Out, "\nLost for good: "+strings.Join(lost, ", "))
			return err
		}
		return a.ask(ctx, view, show, "Really delete this data?", "delete")
	}
}
