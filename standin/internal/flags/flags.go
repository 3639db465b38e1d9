// Package flags parses the stand-in's command lines by a table, with the rules
// of the library K3s uses: one or two dashes, `--bool=true`, lists given by
// repetition, environment variables below flags, and the same message for a
// flag that does not exist.
package flags

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// Kind is how a flag's text is read.
type Kind int

// The kinds of flags.
const (
	String Kind = iota
	Bool
	Int
	List
	Duration
)

// Def describes one flag.
type Def struct {
	Name    string
	Aliases []string
	Kind    Kind
	Env     string
	Default string
}

// Values are the parsed flags of one command line.
type Values struct {
	texts map[string][]string
	kinds map[string]Kind
}

// Parse reads args by defs. It returns the values and the arguments that
// follow the flags.
func Parse(defs []Def, args []string) (*Values, []string, error) {
	v := &Values{texts: map[string][]string{}, kinds: map[string]Kind{}}
	set := flag.NewFlagSet("k3s", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	for _, def := range defs {
		v.kinds[def.Name] = def.Kind
		for _, name := range append([]string{def.Name}, def.Aliases...) {
			set.Var(&value{into: v, def: def}, name, "")
		}
	}
	if err := set.Parse(args); err != nil {
		return nil, nil, err
	}
	for _, def := range defs {
		if _, given := v.texts[def.Name]; given {
			continue
		}
		text := def.Default
		if env := os.Getenv(def.Env); def.Env != "" && env != "" {
			text = env
		}
		if text == "" {
			continue
		}
		if err := (&value{into: v, def: def}).Set(text); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", def.Name, err)
		}
	}
	return v, set.Args(), nil
}

// Known reports whether defs has a flag of that name.
func Known(defs []Def, name string) bool {
	for _, def := range defs {
		if def.Name == name {
			return true
		}
		for _, alias := range def.Aliases {
			if alias == name {
				return true
			}
		}
	}
	return false
}

// Strip drops arguments (of the form --key=value) whose flag does not exist and
// names them to warn. K3s does so with what `server` and `etcd-snapshot` find in
// the configuration file, but not for `agent`.
func Strip(defs []Def, args []string, warn func(name string)) []string {
	var kept []string
	for _, arg := range args {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !Known(defs, name) {
			warn("--" + name)
			continue
		}
		kept = append(kept, arg)
	}
	return kept
}

// value adapts one Def to flag.Value.
type value struct {
	into *Values
	def  Def
}

func (s *value) String() string { return "" }

func (s *value) IsBoolFlag() bool { return s.def.Kind == Bool }

func (s *value) Set(text string) error {
	var err error
	switch s.def.Kind {
	case Bool:
		_, err = strconv.ParseBool(text)
	case Int:
		_, err = strconv.Atoi(text)
	case Duration:
		_, err = time.ParseDuration(text)
	case String, List:
	}
	if err != nil {
		return err
	}
	if s.def.Kind == List {
		s.into.texts[s.def.Name] = append(s.into.texts[s.def.Name], text)
	} else {
		s.into.texts[s.def.Name] = []string{text}
	}
	return nil
}

// String returns a flag's text, or "".
func (v *Values) String(name string) string {
	v.check(name)
	if texts := v.texts[name]; len(texts) > 0 {
		return texts[len(texts)-1]
	}
	return ""
}

// Bool returns a flag's truth, false when it is not given.
func (v *Values) Bool(name string) bool {
	b, _ := strconv.ParseBool(v.String(name))
	return b
}

// Int returns a flag's number, 0 when it is not given.
func (v *Values) Int(name string) int {
	i, _ := strconv.Atoi(v.String(name))
	return i
}

// List returns every value of a flag. Values given with commas are split, as
// K3s does for its lists of addresses and networks.
func (v *Values) List(name string) []string {
	v.check(name)
	var list []string
	for _, text := range v.texts[name] {
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = append(list, part)
			}
		}
	}
	return list
}

// Raw returns every value of a flag as given. Component arguments and taints
// may hold commas of their own.
func (v *Values) Raw(name string) []string {
	v.check(name)
	return v.texts[name]
}

// check catches a misspelt name in our own code.
func (v *Values) check(name string) {
	if _, ok := v.kinds[name]; !ok {
		panic("flags: no flag called " + name)
	}
}
