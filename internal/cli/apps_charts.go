package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
)

func (a *app) appsVendorCommand() *cobra.Command {
	var opts op.AppsOptions
	c := &cobra.Command{
		Use:   "vendor",
		Short: "Put the charts of all apps into the workspace",
		Long: "Gets the charts that come from repositories and puts them into kubernetes/charts, from\n" +
			"where they are taken from then on: a lab can be made and kept without a repository.\n" +
			"Their digests go into k3lab.lock.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			view := a.view()
			opts.Dir, opts.Reporter = a.dir, view
			files, err := op.VendorApps(c.Context(), opts)
			view.Close()
			if a.json && err == nil {
				return writeJSON(a.Out, map[string]any{"written": nonNil(files)})
			}
			for _, f := range files {
				fmt.Fprintln(a.Out, "wrote "+f)
			}
			if err == nil && len(files) == 0 {
				fmt.Fprintln(a.Out, "Nothing to do: no app has a chart that is not in the workspace.")
			}
			return err
		},
	}
	a.addJSON(c, "print the files as one JSON document")
	return c
}

func (a *app) appsRollbackCommand() *cobra.Command {
	var opts op.AppsOptions
	var revision int
	c := &cobra.Command{
		Use:   "rollback APP",
		Short: "Put an app back to a revision of before",
		Long: "Puts an app back to its last good revision, or to the one of --to, and waits until it is\n" +
			"healthy. The files in the workspace stay: the next k3lab up applies them again, so change\n" +
			"them too.\n\n" + exitCodes,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fault.New(fault.Failed, "", "k3lab apps list shows them", "which app is not said")
			}
			view := a.view()
			opts.Dir, opts.Reporter, opts.Names = a.dir, view, args
			to, err := op.RollbackApp(c.Context(), opts, revision)
			view.Close()
			if err != nil {
				return err
			}
			if a.json {
				return writeJSON(a.Out, map[string]any{"app": args[0], "revision": to})
			}
			fmt.Fprintf(a.Out, "%s is as it was at revision %d.\n", args[0], to)
			return nil
		},
	}
	a.addJSON(c, "print events as JSON lines")
	c.Flags().IntVar(&revision, "to", 0, "the revision (default: the last good one before)")
	return c
}
