package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

func (a *app) upCommand() *cobra.Command {
	var opts op.UpOptions
	var yes, deleteVolumes bool
	c := &cobra.Command{
		Use:   "up",
		Short: "Make the lab what the settings say",
		Long: "Shows the plan, asks, makes exactly these changes, and is done when every server\n" +
			"is a started member of the datastore and every node is ready. It can be stopped at\n" +
			"any point and run again.\n\n" + exitCodes,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !yes && !a.interactive() {
				return fault.New(fault.Failed, "", "k3lab plan, then k3lab up --yes", "up asks before it changes anything, and nobody can be asked here")
			}
			view := a.view()
			opts.Dir, opts.Reporter = a.dir, view
			opts.Confirm = a.sparing(c.Context(), view, yes, deleteVolumes)
			result, err := op.Up(c.Context(), opts)
			view.Close()
			if err != nil {
				return err
			}
			return a.showUp(result)
		},
	}
	a.labFlags(c, &opts.LabOptions)
	layerFlag(c, &opts.LabOptions)
	a.addJSON(c, "print events as JSON lines")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	deleteVolumesFlag(c, &deleteVolumes)
	c.Flags().DurationVar(&opts.Timeout, "timeout", op.DefaultTimeout, "how long to wait for machines to boot, and then for the cluster to be whole")
	return c
}

// confirming shows a plan to the person at the terminal and asks, unless the
// answer is yes already.
func (a *app) confirming(ctx context.Context, view *report.Hub, yes bool) func(step.Plan) (bool, error) {
	return func(plan step.Plan) (bool, error) {
		if yes {
			return true, nil
		}
		return a.ask(ctx, view, func() error { return writePlan(a.Out, plan.Changes(), true) }, "Make these changes?", "yes")
	}
}

// ask shows something, then reads a line that must equal want.
func (a *app) ask(ctx context.Context, view *report.Hub, show func() error, question, want string) (bool, error) {
	var answer string
	err := view.Pause(func() error {
		if err := show(); err != nil {
			return err
		}
		fmt.Fprintf(a.Out, "\n%s Type %q: ", question, want)
		line := make(chan error, 1)
		go func() {
			text, err := bufio.NewReader(a.In).ReadString('\n')
			answer = strings.TrimSpace(text)
			line <- err
		}()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-line:
			return err
		}
	})
	if err != nil {
		return false, fault.New(fault.Interrupted, "", "", "no answer: %w", err)
	}
	return answer == want, nil
}

func (a *app) showUp(result *op.UpResult) error {
	if a.json {
		return writeJSON(a.Out, result)
	}
	if result.Declined {
		fmt.Fprintln(a.Out, "Nothing was changed.")
		return nil
	}
	if result.Changes == 0 {
		fmt.Fprintln(a.Out, "No changes: the lab is as the settings say.")
	}
	if result.Status == nil {
		return nil
	}
	if err := writeStatus(a.Out, result.Status); err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "\nUse it:     export KUBECONFIG=%s; kubectl get nodes\n", result.Kubeconfig)
	fmt.Fprintf(a.Out, "Look at it: k3lab -C %s status\n", result.Workspace)
	fmt.Fprintf(a.Out, "Remove it:  k3lab -C %s destroy\n", result.Workspace)
	return nil
}
