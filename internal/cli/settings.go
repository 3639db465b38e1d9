package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
)

func (a *app) validateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "validate",
		Short: "Check the settings, offline",
		Long:  "Reads the four settings files and names every problem at once. Exits 3 when there is one.",
		Args:  cobra.NoArgs,
		RunE: func(_ *cobra.Command, _ []string) error {
			summary, warnings, err := op.Validate(a.dir)
			if err != nil {
				fmt.Fprintln(a.Err, err.Error())
				return &silentError{fault.KindOf(err)}
			}
			if warnings != "" {
				fmt.Fprintln(a.Err, warnings)
			}
			_, err = fmt.Fprintln(a.Out, summary)
			return err
		},
	}
}

func (a *app) fmtCommand() *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use:   "fmt",
		Short: "Rewrite names other labs use to ours, comments and order kept",
		Args:  cobra.NoArgs,
		RunE: func(_ *cobra.Command, _ []string) error {
			rewrites, err := op.Format(a.dir, check)
			if err != nil {
				return err
			}
			for _, r := range rewrites {
				fmt.Fprintln(a.Out, r)
			}
			if check && len(rewrites) > 0 {
				return &silentError{fault.Changes}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&check, "check", false, "change nothing; exit 2 when something would change")
	return c
}

func (a *app) envCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "env",
		Short: "Print what terraform, ansible and kubectl need when used by hand",
		Long:  "Prints shell exports: endpoint, API token, CA bundle, Terraform's CLI configuration and\nKUBECONFIG. Use: eval \"$(k3lab env)\". They hold secrets.",
		Args:  cobra.NoArgs,
		RunE: func(_ *cobra.Command, _ []string) error {
			lines, err := op.Env(op.LabOptions{Dir: a.dir})
			if err != nil {
				return err
			}
			for _, l := range lines {
				fmt.Fprintln(a.Out, l)
			}
			return nil
		},
	}
}
