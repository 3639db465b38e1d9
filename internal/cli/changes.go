package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"

	"github.com/k3lab/k3lab/internal/step"
)

var signs = map[step.Action]string{
	step.Create: "+", step.Update: "~", step.Delete: "-", step.Replace: "±",
	step.Start: "▶", step.Stop: "■", step.Restart: "↻", step.Run: "▶",
}

// writePlan shows changes layer by layer, object by object.
func writePlan(w io.Writer, changes []step.Change, diff bool) error {
	if len(changes) == 0 {
		_, err := fmt.Fprintln(w, "No changes: the lab is as the settings say.")
		return err
	}
	var s strings.Builder
	layer, object, deferred := "", "", 0
	for _, c := range grouped(changes) {
		if c.Layer != layer {
			layer, object = c.Layer, ""
			s.WriteString(layer + "\n")
		}
		if c.Object != object {
			object = c.Object
			s.WriteString("  " + object + "\n")
		}
		if c.Deferred != "" {
			deferred++
			fmt.Fprintf(&s, "    ? deferred: %s\n", c.Deferred)
			continue
		}
		fmt.Fprintf(&s, "    %s %s\n", sign(c.Action), describe(c))
		if diff {
			s.WriteString(unified(c))
		}
	}
	fmt.Fprintf(&s, "\n%s\n", tally(len(changes)-deferred, deferred))
	_, err := io.WriteString(w, s.String())
	return err
}

// grouped brings the changes of one object together, in the order in which the
// objects first appear.
func grouped(changes []step.Change) []step.Change {
	first := map[string]int{}
	for i, c := range changes {
		if _, seen := first[c.Layer+"/"+c.Object]; !seen {
			first[c.Layer+"/"+c.Object] = i
		}
	}
	out := slices.Clone(changes)
	slices.SortStableFunc(out, func(a, b step.Change) int {
		return cmp.Compare(first[a.Layer+"/"+a.Object], first[b.Layer+"/"+b.Object])
	})
	return out
}

func sign(a step.Action) string {
	if s, ok := signs[a]; ok {
		return s
	}
	return "~"
}

func describe(c step.Change) string {
	text := string(c.Action)
	if c.Resource != "" {
		text += " " + c.Resource
	}
	if c.Detail != "" {
		text += ": " + c.Detail
	}
	return text
}

func unified(c step.Change) string {
	if c.Before == "" || c.Before == c.After {
		return ""
	}
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: slices.Collect(strings.Lines(c.Before)), B: slices.Collect(strings.Lines(c.After)), Context: 2,
	})
	if err != nil {
		return ""
	}
	var s strings.Builder
	for line := range strings.Lines(text) {
		s.WriteString("        " + strings.TrimRight(line, "\n") + "\n")
	}
	return s.String()
}

func tally(known, deferred int) string {
	text := fmt.Sprintf("%d change", known)
	if known != 1 {
		text += "s"
	}
	if deferred > 0 {
		text += fmt.Sprintf(", %d deferred: known once the changes before are made", deferred)
	}
	return text + "."
}
