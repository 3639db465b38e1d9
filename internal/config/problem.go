package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/k3lab/k3lab/internal/fault"
)

// Position is a place in a settings file. Line and Column count from 1, columns
// in characters; Line 0 means the file as a whole.
type Position struct {
	File         string // relative to the workspace, with slashes
	Line, Column int
}

func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Problem is one thing wrong, or with Warning set one thing worth knowing, at a
// place in the settings.
type Problem struct {
	Position
	Warning bool
	Message string // object: cause
	Hint    string // what would be right
	Source  string // the offending line
	Width   int    // how many characters of it offend, from Column on
}

// Short is the problem on one line, without the source.
func (p Problem) Short() string {
	s := p.Position.String() + ": " + p.Message
	if p.Hint != "" {
		s += " (" + p.Hint + ")"
	}
	return s
}

// String is the problem with the offending line, a caret under it, and what
// would be right.
func (p Problem) String() string {
	kind := "error"
	if p.Warning {
		kind = "warning"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: %s\n", p.Position, kind, p.Message)
	margin := ""
	if p.Line > 0 {
		number := fmt.Sprintf("%5d", p.Line)
		margin = strings.Repeat(" ", len(number))
		fmt.Fprintf(&b, "%s | %s\n%s | %s%s\n", number, printable(p.Source), margin, indentLike(p.Source, p.Column), strings.Repeat("^", max(p.Width, 1)))
	}
	if p.Hint != "" {
		fmt.Fprintf(&b, "%s = %s\n", margin, p.Hint)
	}
	return b.String()
}

// indentLike returns the white space that puts a caret under column, tabs kept.
func indentLike(source string, column int) string {
	var b strings.Builder
	n := 1
	for _, r := range source {
		if n >= column {
			break
		}
		if r == '\t' {
			b.WriteRune('\t')
		} else {
			b.WriteByte(' ')
		}
		n++
	}
	return b.String()
}

// printable keeps control characters of a broken file from reaching a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0) {
			return '\ufffd'
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
}

// Problems is everything Load has to say about a workspace, sorted by file, line
// and column. As an error it is of kind fault.Invalid; use Err to get nil where
// there are only warnings.
type Problems struct {
	list []Problem
}

// Errors returns what must be put right.
func (p *Problems) Errors() []Problem { return p.which(false) }

// Warnings returns what is allowed but worth knowing.
func (p *Problems) Warnings() []Problem { return p.which(true) }

func (p *Problems) which(warning bool) []Problem {
	if p == nil {
		return nil
	}
	var out []Problem
	for _, q := range p.list {
		if q.Warning == warning {
			out = append(out, q)
		}
	}
	return out
}

// Err returns p when it holds an error, else nil.
func (p *Problems) Err() error {
	if len(p.Errors()) == 0 {
		return nil
	}
	return p
}

// Text shows the errors, then the warnings, each with its source, a blank line
// between them. It is empty when there are none.
func (p *Problems) Text() string {
	var parts []string
	for _, q := range append(p.Errors(), p.Warnings()...) {
		parts = append(parts, strings.TrimSuffix(q.String(), "\n"))
	}
	return strings.Join(parts, "\n\n")
}

func (p *Problems) Error() string {
	return p.Text() + "\n\n" + p.Summary()
}

// Summary counts the problems: "2 errors, 1 warning".
func (p *Problems) Summary() string {
	s := count(len(p.Errors()), "error")
	if n := len(p.Warnings()); n > 0 {
		s += ", " + count(n, "warning")
	}
	return s
}

// Unwrap gives the error its kind.
func (p *Problems) Unwrap() error {
	return &fault.Error{Kind: fault.Invalid, Object: "settings", Err: errors.New(p.Summary())}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// sorted orders problems by place and drops repeated ones: a broken default is
// found again in every machine that inherits it.
func sorted(list []Problem) []Problem {
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(slices.Index(Files[:], a.File), slices.Index(Files[:], b.File)),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Message, b.Message),
		)
	})
	return slices.CompactFunc(list, func(a, b Problem) bool {
		return a.Position == b.Position && a.Message == b.Message
	})
}
