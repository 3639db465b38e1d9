package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
)

func (a *app) planCommand() *cobra.Command {
	var opts op.LabOptions
	var diff bool
	c := &cobra.Command{
		Use:   "plan",
		Short: "Show every change that up would make",
		Long: "Shows every change that k3lab up would make, and makes none. What cannot be read\n" +
			"before an earlier change is made is listed as deferred.\n\n" +
			"Exits 0 when there is nothing to change and 2 when there is.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			view := a.view()
			opts.Dir, opts.Reporter = a.dir, view
			plan, err := op.Plan(c.Context(), opts)
			view.Close()
			refused := err // what could be planned is shown all the same
			if refused != nil && plan == nil {
				return refused
			}
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
	a.labFlags(c, &opts)
	layerFlag(c, &opts)
	a.addJSON(c, "print events and changes as JSON lines")
	c.Flags().BoolVar(&diff, "diff", true, "show what changes in files")
	return c
}

// labFlags are the flags of every command that works on the lab.
func (a *app) labFlags(c *cobra.Command, opts *op.LabOptions) {
	f := c.Flags()
	f.StringVar(&opts.K3sBinary, "k3s-binary", "", "use this K3s binary instead of the release (also K3LAB_K3S_BINARY)")
	f.StringVar(&opts.Terraform, "terraform", "", "the terraform or tofu binary (also K3LAB_TERRAFORM; default: from PATH)")
}

func layerFlag(c *cobra.Command, opts *op.LabOptions) {
	c.Flags().StringSliceVar(&opts.Layers, "layer", nil, "only these layers: "+strings.Join(op.Layers(), ", ")+" (default: all)")
}

func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func writeJSON(w io.Writer, v any) error {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	return nil
}
