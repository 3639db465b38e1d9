package config

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/k3lab/k3lab/internal/fault"
)

// Rewrite is one name Format has put into ours.
type Rewrite struct {
	Position
	From, To string // "ram: 8G", "memory_mib: 8192"; names alone where the value stays
}

func (r Rewrite) String() string {
	return fmt.Sprintf("%s: %s is now %s", r.Position, r.From, r.To)
}

// Format rewrites the names other labs use to ours, in the text of one of Files.
// Everything else stays byte for byte: comments, order, blank lines, quotes. What
// has no sure meaning is left for Load to report. Formatting twice changes
// nothing more. The error is of kind fault.Invalid where src is not YAML.
func Format(file string, src []byte) ([]byte, []Rewrite, error) {
	shape := shapeOf(file)
	if shape == nil {
		return nil, nil, fault.New(fault.Failed, file, "", "it is not a settings file")
	}
	c := &checker{sources: newSources()}
	root := c.parse(file, src)
	if root == nil {
		return nil, nil, (&Problems{list: sorted(c.problems)}).Err()
	}
	t := newText(src)
	var rewrites []Rewrite
	c.walk(root, shape, "", func(r renamed) {
		if !r.ok {
			return
		}
		rewrite := Rewrite{r.from.at.Position, r.from.text, r.to.name}
		t.replace(r.from.at, r.to.name)
		if r.text != "" && r.value.kind != kindList {
			if old := t.replace(r.value.at, r.text); old != "" && old != r.text {
				rewrite.From += ": " + old
				rewrite.To += ": " + r.text
			}
		}
		rewrites = append(rewrites, rewrite)
	})
	if len(rewrites) == 0 {
		return src, nil, nil
	}
	out := t.edited()
	if again := (&checker{sources: newSources()}).parse(file, out); again == nil || !reflect.DeepEqual(again.value(), root.value()) {
		return nil, nil, fault.New(fault.Failed, file, "write "+rewrites[0].To+" by hand, then k3lab fmt", "%s cannot be rewritten without changing more", rewrites[0].From)
	}
	return out, rewrites, nil
}

// editable is a file that is changed at places given by line and column.
type editable struct {
	src   []byte
	lines []int // where each line starts
	edits []edit
}

type edit struct {
	from, to int
	text     string
}

func newText(src []byte) *editable {
	t := &editable{src: src, lines: []int{0}}
	if bytes.HasPrefix(src, []byte("\ufeff")) {
		t.lines[0] = len("\ufeff")
	}
	for i, b := range src {
		if b == '\n' {
			t.lines = append(t.lines, i+1)
		}
	}
	return t
}

// replace changes the scalar that starts at the place and returns what stood
// there, or "" where no scalar on one line does.
func (t *editable) replace(at span, text string) string {
	if at.Line < 1 || at.Line > len(t.lines) {
		return ""
	}
	start := t.lines[at.Line-1]
	for range at.Column - 1 {
		if start >= len(t.src) {
			return ""
		}
		_, size := utf8.DecodeRune(t.src[start:])
		start += size
	}
	end := start + scalarLength(t.src[start:], at.width)
	if end == start {
		return ""
	}
	t.edits = append(t.edits, edit{start, end, text})
	return string(t.src[start:end])
}

// scalarLength returns how many bytes the scalar at the start of src takes. A
// plain one has width characters.
func scalarLength(src []byte, width int) int {
	if len(src) == 0 {
		return 0
	}
	if quote := src[0]; quote == '"' || quote == '\'' {
		for i := 1; i < len(src); i++ {
			switch {
			case src[i] == '\n':
				return 0
			case quote == '"' && src[i] == '\\':
				i++
			case src[i] == quote && quote == '\'' && i+1 < len(src) && src[i+1] == quote:
				i++
			case src[i] == quote:
				return i + 1
			}
		}
		return 0
	}
	n := 0
	for range width {
		if n >= len(src) || src[n] == '\n' {
			return 0
		}
		_, size := utf8.DecodeRune(src[n:])
		n += size
	}
	return n
}

func (t *editable) edited() []byte {
	slices.SortFunc(t.edits, func(a, b edit) int { return a.from - b.from })
	var out strings.Builder
	done := 0
	for _, e := range t.edits {
		if e.from < done {
			continue // the same scalar, reached through an alias
		}
		out.Write(t.src[done:e.from])
		out.WriteString(e.text)
		done = e.to
	}
	out.Write(t.src[done:])
	return []byte(out.String())
}
