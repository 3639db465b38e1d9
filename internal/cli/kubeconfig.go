package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
)

func (a *app) kubeconfigCommand() *cobra.Command {
	var opts op.KubeconfigOptions
	c := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print the kubeconfig, or merge it into another",
		Long: "Reads the administrator's kubeconfig from a server, keeps it in the workspace\n" +
			"(.k3lab/kubeconfig, readable by you only) and prints where it is.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if opts.Use && opts.Merge == "" {
				return fault.New(fault.Failed, "", "k3lab kubeconfig --merge ~/.kube/config --use", "--use concerns the file that --merge names, and none is named")
			}
			view := a.view()
			opts.Dir, opts.Reporter = a.dir, view
			result, err := op.Kubeconfig(c.Context(), opts)
			view.Close()
			if err != nil {
				return err
			}
			switch {
			case opts.Print:
				_, err = a.Out.Write(result.Content)
			case opts.Merge != "":
				_, err = fmt.Fprintf(a.Out, "context %s is now in %s\n", result.Context, opts.Merge)
			default:
				_, err = fmt.Fprintf(a.Out, "export KUBECONFIG=%s\n", result.Path)
			}
			return err
		},
	}
	f := c.Flags()
	f.BoolVar(&opts.Print, "print", false, "print the kubeconfig itself")
	f.StringVar(&opts.Merge, "merge", "", "merge it into this file, for example ~/.kube/config")
	f.BoolVar(&opts.Use, "use", false, "with --merge: make it the current context")
	return c
}
