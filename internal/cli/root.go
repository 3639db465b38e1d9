// Package cli is k3lab's command line: each command turns its flags into the
// options of one operation, runs it and shows the result.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
	"github.com/k3lab/k3lab/internal/report"
)

// Streams are where a command reads and writes. Results go to Out, everything
// else to Err.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

const exitCodes = `Exit codes: 0 done, 1 failed, 2 plan has changes, 3 invalid settings,
4 unreachable, 5 locked, 6 unhealthy, 130 interrupted.`

// app is what every command shares.
type app struct {
	Streams
	version string
	dir     string // of the workspace; empty: found from the working directory upwards
	json    bool
	ctx     context.Context // of the command line: whoever is shown a view is told there of an interrupt
}

// ServePlugin serves the Terraform provider when terraform has started this
// process for that. It must be asked before anything else.
func ServePlugin(version string) (code int, served bool) {
	if !op.IsPlugin() {
		return 0, false
	}
	if err := op.ServePlugin(context.Background(), version); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// Run runs the command line and returns its exit code.
func Run(ctx context.Context, streams Streams, version string, args []string) int {
	a := &app{Streams: streams, version: version, ctx: ctx}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	kind := fault.KindOf(err)
	if ctx.Err() != nil {
		// Whatever else failed did so while everything was being given up.
		kind = fault.Interrupted
	}
	var silent *silentError
	switch {
	case errors.As(err, &silent):
		kind = silent.kind
	case kind == fault.Interrupted:
		fmt.Fprintln(streams.Err, "interrupted; run the same command again to go on from here")
	default:
		fmt.Fprintln(streams.Err, "k3lab: "+err.Error())
	}
	return int(kind)
}

// silentError carries an exit code when the command has said everything already.
type silentError struct{ kind fault.Kind }

func (e *silentError) Error() string { return fmt.Sprintf("exit code %d", e.kind) }

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "k3lab",
		Short: "A home lab from bare Proxmox VE to a highly available K3s cluster",
		Long: "k3lab reads the settings of a workspace (k3lab init writes one) and conducts\n" +
			"Terraform and the machines so that the lab becomes what they say.\n\n" + exitCodes,
		Version:       a.version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().StringVarP(&a.dir, "dir", "C", "", "the workspace (default: the one the working directory is in)")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fault.New(fault.Failed, "", c.CommandPath()+" --help", "%w", err)
	})
	root.AddCommand(
		a.initCommand(), a.importCommand(), a.validateCommand(), a.fmtCommand(), a.envCommand(),
		a.lockCommand(), a.planCommand(), a.upCommand(), a.desiredCommand(), a.statusCommand(), a.kubeconfigCommand(),
		a.appsCommand(), a.sshCommand(), a.osCommand(), a.secretsCommand(), a.resetCommand(), a.destroyCommand(), a.sandboxCommand(),
	)
	refuseUnknown(root)
	for _, c := range root.Commands() {
		if c.HasSubCommands() {
			refuseUnknown(c)
		}
	}
	return root
}

// refuseUnknown makes a command that only holds others fail on a name it does
// not hold; cobra would show the help and succeed.
func refuseUnknown(c *cobra.Command) {
	c.Args = cobra.ArbitraryArgs
	c.DisableFlagsInUseLine = true
	c.SuggestionsMinimumDistance = 2
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		hint := c.CommandPath() + " --help"
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			// People rarely miss the first letter.
			same := slices.IndexFunc(near, func(n string) bool { return n[0] == args[0][0] })
			hint = c.CommandPath() + " " + near[max(same, 0)]
		}
		return fault.New(fault.Failed, "", hint, "there is no command %q", c.CommandPath()+" "+args[0])
	}
}

// addJSON gives a command the --json flag.
func (a *app) addJSON(c *cobra.Command, help string) {
	c.Flags().BoolVar(&a.json, "json", false, help)
}

// view returns the hub that shows an operation's events in the way that fits
// where they go: JSON lines, a live tree on a terminal, plain lines elsewhere.
func (a *app) view() *report.Hub {
	hub := a.newHub()
	context.AfterFunc(a.ctx, func() {
		hub.Report(report.Event{Kind: report.Warning, Message: "interrupted: finishing what cannot be left half-done (again to stop at once)"})
	})
	return hub
}

func (a *app) newHub() *report.Hub {
	if a.json {
		return report.NewHub(report.NewJSON(a.Out))
	}
	if f, ok := a.Err.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return report.NewHub(report.NewLive(f, func() int {
			if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 10 {
				return w
			}
			return 80
		}))
	}
	return report.NewHub(report.NewPlain(a.Err))
}

// interactive reports whether a person can be asked.
func (a *app) interactive() bool {
	in, ok := a.In.(*os.File)
	return ok && term.IsTerminal(int(in.Fd())) && !a.json
}
