package config

import "fmt"

// checker gathers what is wrong while the settings are read and judged.
type checker struct {
	sources  *Sources
	problems []Problem
	// machinesUnread: nodes.yaml has no map of machines, which has been reported.
	machinesUnread bool
}

func (c *checker) errorf(at span, hint, format string, args ...any) {
	c.problems = append(c.problems, c.sources.problem(at, false, fmt.Sprintf(format, args...), hint))
}

func (c *checker) warnf(at span, hint, format string, args ...any) {
	c.problems = append(c.problems, c.sources.problem(at, true, fmt.Sprintf(format, args...), hint))
}

// errorAt is errorf for a key of Sources; the message starts with the key.
func (c *checker) errorAt(key, hint, format string, args ...any) {
	c.errorf(c.sources.span(key), hint, "%s: %s", label(key), fmt.Sprintf(format, args...))
}

// warnAt is warnf for a key of Sources.
func (c *checker) warnAt(key, hint, format string, args ...any) {
	c.warnf(c.sources.span(key), hint, "%s: %s", label(key), fmt.Sprintf(format, args...))
}

// line is the line of a key, for messages that point at a second place. A place
// in another file is given with its name.
func (c *checker) line(key, from string) string {
	p, here := c.sources.Position(key), c.sources.Position(from)
	if p.File != here.File {
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("line %d", p.Line)
}

// label is a key of Sources without the file: what the user sees in the file.
func label(key string) string {
	for i := range len(key) {
		if key[i] == '.' {
			return key[i+1:]
		}
	}
	return key
}
