package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/k3lab/k3lab/internal/cluster"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
)

func (a *app) security(ctx context.Context, opts op.LabOptions) error {
	security, err := op.ReadSecurity(ctx, opts)
	if err != nil {
		return err
	}
	if a.json {
		err = writeJSON(a.Out, security)
	} else {
		err = writeSecurity(a.Out, security)
	}
	if err == nil && security.Failed > 0 {
		err = &silentError{fault.Unhealthy}
	}
	return err
}

// writeSecurity shows one line for each check and each different thing it found.
func writeSecurity(w io.Writer, s *op.Security) error {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "CHECK\tSTATE\tON\tEVIDENCE")
	for _, c := range s.Checks {
		name := c.Name
		for _, f := range alike(c.Findings) {
			on := f.Object
			if n := strings.Count(on, ",") + 1; n > 1 && n == len(c.Findings) {
				on = fmt.Sprintf("all %d", n)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", name, f.Verdict, on, f.Evidence)
			name = ""
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	unknown := 0
	for _, c := range s.Checks {
		if c.Verdict == cluster.Unknown {
			unknown++
		}
	}
	fmt.Fprintf(&text, "\n%d checks: %d ok, %d failed, %d not known.\n", len(s.Checks), len(s.Checks)-s.Failed-unknown, s.Failed, unknown)
	_, err := io.WriteString(w, text.String())
	return err
}

// alike joins the findings that say the same, bad ones first.
func alike(findings []cluster.Finding) []cluster.Finding {
	var out []cluster.Finding
	for _, verdict := range []cluster.Verdict{cluster.Bad, cluster.Unknown, cluster.OK} {
		for _, f := range findings {
			if f.Verdict != verdict {
				continue
			}
			same := slices.IndexFunc(out, func(o cluster.Finding) bool { return o.Verdict == f.Verdict && o.Evidence == f.Evidence })
			if same < 0 {
				out = append(out, f)
				continue
			}
			out[same].Object += ", " + f.Object
		}
	}
	return out
}
