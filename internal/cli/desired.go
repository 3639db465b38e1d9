package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
)

func (a *app) desiredCommand() *cobra.Command {
	var opts op.DesiredOptions
	c := &cobra.Command{
		Use:   "desired [NODE…]",
		Short: "Show what machines should look like",
		Long: "Computes from the settings what each node's machine should look like, file by file.\n" +
			"It asks the machines what the settings cannot say, such as whether there is a\n" +
			"cluster already, and changes nothing on them.\n\n" +
			"--json is what the Ansible playbooks of the workspace use; it also puts what they\n" +
			"copy to the machines into .k3lab/cache.",
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			view := a.view()
			opts.Dir, opts.Reporter, opts.Nodes, opts.Supplies = a.dir, view, args, a.json
			nodes, err := op.Desired(c.Context(), opts)
			view.Close()
			if err != nil {
				return err
			}
			if a.json {
				return writeJSON(a.Out, map[string]any{"tags": op.DesiredTags(), "nodes": nodes})
			}
			return a.showDesired(nodes)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&opts.Tags, "tags", nil, "only what has one of these tags: "+strings.Join(op.DesiredTags(), ", "))
	f.BoolVar(&opts.Secrets, "show-secrets", false, "show secrets instead of ***")
	f.StringVar(&opts.K3sBinary, "k3s-binary", "", "use this K3s binary instead of the release (also K3LAB_K3S_BINARY)")
	a.addJSON(c, "print one JSON document, for programs")
	return c
}

// showDesired prints the states and is an error where one could not be computed.
func (a *app) showDesired(nodes []op.DesiredNode) error {
	kind := fault.Kind(0)
	for i := range nodes {
		n := &nodes[i]
		if n.Error != "" {
			fmt.Fprintf(a.Err, "k3lab: %s: %s\n", n.Node, n.Error)
			kind = fault.Failed
			if n.Unreachable {
				kind = fault.Unreachable
			}
			continue
		}
		if err := writeDesired(a.Out, n.Node, n.State.Resources); err != nil {
			return err
		}
	}
	if kind != 0 {
		return &silentError{kind}
	}
	return nil
}

// writeDesired lists resources under their tags, in the order they are made in.
func writeDesired(w io.Writer, node string, resources []converger.Resource) error {
	var s strings.Builder
	s.WriteString(node + "\n")
	tags := ""
	for _, r := range resources {
		if t := strings.Join(r.Tags, ", "); t != tags {
			tags = t
			s.WriteString("  " + tags + "\n")
		}
		s.WriteString("    " + r.ID())
		if d := details(r); d != "" {
			s.WriteString("  " + d)
		}
		s.WriteString("\n")
		if r.File != nil {
			for line := range strings.Lines(r.File.Content) {
				s.WriteString("        " + strings.TrimRight(line, "\n") + "\n")
			}
		}
	}
	_, err := io.WriteString(w, s.String())
	return err
}

// details are the resource's fields by their names on the wire, but those that
// its name or its text shows.
func details(r converger.Resource) string {
	r.Tags = nil
	text, err := json.Marshal(r)
	if err != nil {
		return ""
	}
	var top map[string]any
	if json.Unmarshal(text, &top) != nil {
		return ""
	}
	fields := map[string]any{}
	for name, value := range top {
		if of, nested := value.(map[string]any); nested {
			maps.Copy(fields, of)
		} else {
			fields[name] = value
		}
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := fmt.Sprint(fields[name])
		switch {
		case name == "content" || strings.HasSuffix(r.ID(), " "+value):
			continue
		case name == "mode":
			value = fmt.Sprintf("%04o", int(fields[name].(float64)))
		}
		out = append(out, name+"="+value)
	}
	return strings.Join(out, " ")
}
