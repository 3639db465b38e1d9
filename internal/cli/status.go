package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
)

func (a *app) statusCommand() *cobra.Command {
	var opts op.LabOptions
	var watch, security bool
	var wait time.Duration
	var node string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the health of machines, datastore and nodes",
		Long: "Reads every machine, every member of the datastore and the API at once.\n\n" +
			"With --security it looks at what protects the lab instead: every check with what was\n" +
			"read, from machines and API as they are, not from the settings.\n\n" +
			"Exits 0 when the cluster is whole, or no check failed, and 6 otherwise; with --wait, when\n" +
			"it is not whole in that time. --node has it wait for one machine's K3s alone.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if watch && security {
				return fault.New(fault.Failed, "", "one of them", "--watch and --security exclude each other")
			}
			view := a.view()
			defer view.Close()
			opts.Dir, opts.Reporter = a.dir, view
			switch {
			case security:
				return a.security(c.Context(), opts)
			case wait > 0:
				if err := op.AwaitHealth(c.Context(), opts, wait, node); err != nil || node != "" {
					return err
				}
			case node != "":
				return fault.New(fault.Failed, "", "k3lab status --wait 5m --node "+node, "--node says what --wait waits for, and it is missing")
			}
			if watch {
				return a.watchStatus(c.Context(), opts)
			}
			status, err := op.ReadStatus(c.Context(), opts)
			if err != nil {
				return err
			}
			return a.showStatus(status)
		},
	}
	a.addJSON(c, "print the status as one JSON document")
	c.Flags().BoolVar(&security, "security", false, "check what protects the lab, with the evidence")
	c.Flags().DurationVar(&wait, "wait", 0, "wait until the cluster is whole, at most this long")
	c.Flags().StringVar(&node, "node", "", "with --wait: only until this node is whole")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "show it again every two seconds until interrupted")
	c.MarkFlagsMutuallyExclusive("watch", "wait")
	return c
}

func (a *app) showStatus(status *op.Status) error {
	var err error
	if a.json {
		err = writeJSON(a.Out, status)
	} else {
		err = writeStatus(a.Out, status)
	}
	if err == nil && len(status.Problems) > 0 {
		err = &silentError{fault.Unhealthy}
	}
	return err
}

func (a *app) watchStatus(ctx context.Context, opts op.LabOptions) error {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		status, err := op.ReadStatus(ctx, opts)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if !a.json {
			fmt.Fprint(a.Out, "\x1b[H\x1b[2J")
		}
		// Watching shows trouble; it does not end because of it.
		_ = a.showStatus(status)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func writeStatus(w io.Writer, s *op.Status) error {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "NAME\tROLE\tADDRESS\tMACHINE\tK3S\tDATASTORE\tNODE\tVERSION")
	for _, m := range s.Members {
		machine := "up"
		if !m.Reachable {
			machine = "no answer"
		}
		node, version := "-", "-"
		if m.Node != nil {
			node, version = "Ready", m.Node.Version
			if !m.Node.Ready {
				node = "NotReady"
			}
			if len(m.Node.Roles) > 0 {
				node += " (" + strings.Join(m.Node.Roles, ", ") + ")"
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			m.Name, m.Role, m.Address, machine, orDash(m.Unit.Active), m.Datastore.String(), node, version)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(s.Apps) > 0 {
		text.WriteString("\n")
		if err := writeApps(&text, s.Apps); err != nil {
			return err
		}
	}
	if len(s.Problems) == 0 {
		fmt.Fprintf(&text, "\nHealthy: %s, API at %s\n", s.Summary(), s.URL)
	} else {
		text.WriteString("\nUnhealthy:\n")
		for _, p := range s.Problems {
			text.WriteString("  " + p + "\n")
		}
	}
	if s.VIP != nil && len(s.VIP.Holders) > 0 {
		fmt.Fprintf(&text, "VIP: %s on %s (by %s)\n", s.VIP.Address, strings.Join(s.VIP.Holders, ", "), cmp.Or(string(s.VIPProvider), "what k3lab does not look after"))
	}
	if s.K3s != "" {
		fmt.Fprintf(&text, "K3s: %s\n", s.K3s)
	}
	for _, n := range s.Notes {
		text.WriteString(n + "\n")
	}
	_, err := io.WriteString(w, text.String())
	return err
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
