package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
	"github.com/k3lab/k3lab/internal/report"
)

const kubeconfigHelp = `Reads the administrator's kubeconfig from a server, keeps it in the workspace
(.k3lab/kubeconfig, readable by you only) and prints where it is.

With --user and --role it issues one for somebody else: a key is made on this
computer, the cluster signs a client certificate for it, and the person's name is
bound to the role. Roles: viewer reads everything but secrets, operator runs apps
outside the cluster's own namespaces, admin does everything. The same name with
another role changes the role of every kubeconfig of that name.

Kubernetes cannot revoke a certificate. --revoke takes the role from the name, so
that every certificate of that name is answered 403 from then on, until it ends by
itself. What the person made before, as a token of a service account or a role
binding, is not undone.`

// kubeconfigFlags are all flags of the command, whichever operation they lead to.
type kubeconfigFlags struct {
	op.KubeconfigOptions
	issue  op.IssueOptions
	revoke string
	list   bool
}

func (a *app) kubeconfigCommand() *cobra.Command {
	var f kubeconfigFlags
	c := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print the kubeconfig, or issue and withdraw those of other people",
		Long:  kubeconfigHelp,
		Example: "  k3lab kubeconfig --merge ~/.kube/config --use\n" +
			"  k3lab kubeconfig --user anna --role viewer --lifetime 720h --output anna.kubeconfig\n" +
			"  k3lab kubeconfig --revoke anna",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			view := a.view()
			f.Dir, f.Reporter = a.dir, view
			f.issue.LabOptions, f.issue.Print = f.LabOptions, f.Print
			switch {
			case f.issue.User != "":
				return a.issue(c.Context(), view, f.issue)
			case f.revoke != "":
				return a.revoke(c.Context(), view, f.LabOptions, f.revoke)
			case f.list:
				return a.people(c.Context(), view, f.LabOptions)
			default:
				return a.kubeconfig(c.Context(), view, f.KubeconfigOptions)
			}
		},
	}
	s := c.Flags()
	s.BoolVar(&f.Print, "print", false, "print the kubeconfig itself")
	s.StringVar(&f.Merge, "merge", "", "merge it into this file, for example ~/.kube/config")
	s.BoolVar(&f.Use, "use", false, "with --merge: make it the current context")
	s.StringVar(&f.issue.User, "user", "", "issue a kubeconfig for the person of this name")
	s.StringVar(&f.issue.Role, "role", "", "with --user: viewer, operator or admin")
	s.DurationVar(&f.issue.Lifetime, "lifetime", op.DefaultLifetime, "with --user: how long its certificate is good")
	s.StringVarP(&f.issue.Output, "output", "o", "", "with --user: the file to write (default: .k3lab/people/NAME.kubeconfig)")
	s.StringVar(&f.revoke, "revoke", "", "take the role from the person of this name")
	s.BoolVar(&f.list, "list", false, "list the people who were given a role")
	a.addJSON(c, "with --list: print one JSON document")
	return c
}

// check refuses flags that do not belong together.
func (f *kubeconfigFlags) check() error {
	told := 0
	for _, is := range []bool{f.issue.User != "", f.revoke != "", f.list, f.Merge != ""} {
		if is {
			told++
		}
	}
	switch {
	case told > 1:
		return fault.New(fault.Failed, "", "one of them", "--user, --revoke, --list and --merge exclude each other")
	case f.Use && f.Merge == "":
		return fault.New(fault.Failed, "", "k3lab kubeconfig --merge ~/.kube/config --use", "--use concerns the file that --merge names, and none is named")
	case f.issue.User == "" && (f.issue.Role != "" || f.issue.Output != ""):
		return fault.New(fault.Failed, "", "k3lab kubeconfig --user NAME --role viewer", "--role and --output concern the person that --user names, and none is named")
	case f.issue.User != "" && f.issue.Role == "":
		return fault.New(fault.Failed, "", "k3lab kubeconfig --user "+f.issue.User+" --role viewer", "which role the person gets is not said: viewer, operator or admin")
	}
	return nil
}

func (a *app) kubeconfig(ctx context.Context, view *report.Hub, opts op.KubeconfigOptions) error {
	result, err := op.Kubeconfig(ctx, opts)
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
}

func (a *app) issue(ctx context.Context, view *report.Hub, opts op.IssueOptions) error {
	result, err := op.Issue(ctx, opts)
	view.Close()
	if err != nil {
		return err
	}
	if opts.Print {
		_, err = a.Out.Write(result.Content)
		return err
	}
	_, err = fmt.Fprintf(a.Out, "%s: %s until %s, in %s\n", opts.User, opts.Role, day(result.Until), result.Path)
	return err
}

func (a *app) revoke(ctx context.Context, view *report.Hub, opts op.LabOptions, name string) error {
	result, err := op.Revoke(ctx, opts, name)
	view.Close()
	if err != nil {
		return err
	}
	if result.Bound {
		fmt.Fprintf(a.Out, "%s: has no role any more; every certificate of that name is answered 403\n", name)
	}
	if len(result.Others) > 0 {
		return fault.New(fault.Unhealthy, name, "kubectl delete what should not be",
			"bindings that k3lab has not made still name this person: %s", strings.Join(result.Others, ", "))
	}
	return nil
}

func (a *app) people(ctx context.Context, view *report.Hub, opts op.LabOptions) error {
	people, err := op.People(ctx, opts)
	view.Close()
	if err != nil {
		return err
	}
	if a.json {
		return writeJSON(a.Out, map[string]any{"people": people})
	}
	table := tabwriter.NewWriter(a.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "NAME\tROLE\tCERTIFICATE UNTIL")
	for _, p := range people {
		fmt.Fprintf(table, "%s\t%s\t%s\n", p.Name, p.Role, day(p.Until))
	}
	return table.Flush()
}

// day is a moment as people read it, here; "-" for none.
func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04 MST")
}
