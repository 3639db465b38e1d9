package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"charm.land/lipgloss/v2"
	"github.com/rogpeppe/go-internal/diff"

	"github.com/k3lab/k3lab/internal/step"
)

var signs = map[step.Action]string{
	step.Create: "+", step.Update: "~", step.Delete: "-", step.Replace: "±",
	step.Start: "▶", step.Stop: "■", step.Restart: "↻", step.Run: "▶",
}

// writePlan shows changes layer by layer, object by object. Objects to which the
// same is done are shown once, so that the plan of many machines stays short.
func writePlan(w io.Writer, changes []step.Change, diff bool) error {
	if len(changes) == 0 {
		_, err := fmt.Fprintln(w, "No changes: the lab is as the settings say.")
		return err
	}
	var s strings.Builder
	layer, deferred := "", 0
	for _, b := range blocks(changes, diff) {
		if b.layer != layer {
			layer = b.layer
			s.WriteString(layer + "\n")
		}
		s.WriteString("  " + strings.Join(b.objects, ", ") + "\n" + b.text)
	}
	for _, c := range changes {
		if c.Deferred != "" {
			deferred++
		}
	}
	fmt.Fprintf(&s, "\n%s\n", tally(len(changes)-deferred, deferred))
	// Colours are left out where they cannot be shown.
	_, err := lipgloss.Fprint(w, s.String())
	return err
}

// block is what is done to some objects of one layer, as it is shown.
type block struct {
	layer   string
	objects []string
	text    string
}

func blocks(changes []step.Change, diff bool) []block {
	var single []block
	for _, c := range grouped(changes) {
		if n := len(single); n == 0 || single[n-1].layer != c.Layer || single[n-1].objects[0] != c.Object {
			single = append(single, block{layer: c.Layer, objects: []string{c.Object}})
		}
		single[len(single)-1].text += shown(c, diff)
	}
	var out []block
	for _, b := range single {
		same := slices.IndexFunc(out, func(o block) bool { return o.layer == b.layer && o.text == b.text })
		if same < 0 {
			out = append(out, b)
			continue
		}
		out[same].objects = append(out[same].objects, b.objects...)
	}
	return out
}

func shown(c step.Change, diff bool) string {
	if c.Deferred != "" {
		return "    ? deferred: " + c.Deferred + "\n"
	}
	text := "    " + sign(c.Action) + " " + describe(c) + "\n"
	for _, lost := range c.Destroys {
		text += "        " + lipgloss.NewStyle().Foreground(lipgloss.Red).Render("its data is lost for good: "+lost) + "\n"
	}
	if diff {
		text += unified(c)
	}
	return text
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

// unified shows how the text changes. A text that begins or ends to be is shown
// whole, as a change from or to nothing.
func unified(c step.Change) string {
	if c.Before == c.After || (oneLine(c.Before) && oneLine(c.After) && c.Detail != "") {
		return "" // the detail says it
	}
	text := diff.Diff("", printable(c.Before), "", printable(c.After))
	var s strings.Builder
	begun := false // the names of the texts come first, and they have none
	for line := range strings.Lines(string(text)) {
		begun = begun || strings.HasPrefix(line, "@@")
		if begun {
			s.WriteString("        " + colour(strings.TrimRight(line, "\n")) + "\n")
		}
	}
	return s.String()
}

// printable writes out characters that would command the terminal.
func printable(text string) []byte {
	var s strings.Builder
	for line := range strings.Lines(text) {
		whole, ended := strings.CutSuffix(line, "\n")
		s.WriteString(visible(whole))
		if ended {
			s.WriteByte('\n')
		}
	}
	return []byte(s.String())
}

func visible(line string) string {
	var s strings.Builder
	for _, r := range line {
		if r == '\t' || unicode.IsPrint(r) {
			s.WriteRune(r)
			continue
		}
		s.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
	}
	return s.String()
}

func oneLine(text string) bool { return !strings.Contains(text, "\n") }

// colour paints a line of a unified diff as people know it from git.
func colour(line string) string {
	style := lipgloss.NewStyle().TabWidth(lipgloss.NoTabConversion)
	switch {
	case strings.HasPrefix(line, "@@"):
		style = style.Foreground(lipgloss.Cyan)
	case strings.HasPrefix(line, "+"):
		style = style.Foreground(lipgloss.Green)
	case strings.HasPrefix(line, "-"):
		style = style.Foreground(lipgloss.Red)
	default:
		return line
	}
	return style.Render(line)
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
