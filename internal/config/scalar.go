package config

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// kind is what a value is to all three readers of the settings: k3lab,
// Terraform's yamldecode and Ansible.
type kind int

const (
	kindNull kind = iota
	kindBool
	kindInt
	kindFloat
	kindText
	kindMap
	kindList
)

func (k kind) String() string {
	return [...]string{"nothing", "true or false", "a whole number", "a decimal number", "text", "a map", "a list"}[k]
}

var (
	plainInt   = regexp.MustCompile(`^[-+]?(0|[1-9][0-9]{0,17})$`)
	plainFloat = regexp.MustCompile(`^[-+]?(0|[1-9][0-9]{0,17})\.[0-9]+$`)
)

// indicator is text that begins like a list item, a key or a value.
var indicator = regexp.MustCompile(`^[-?:]([ \t]|$)`)

// ambiguous are the forms that YAML 1.1 (Ansible) and 1.2 do not read the same,
// or that the readers at hand do not, each with what they make of it.
var ambiguous = []struct {
	form *regexp.Regexp
	why  string
}{
	{regexp.MustCompile(`^(?i:y|n|yes|no|on|off)$`), "is true or false to some readers and text to others"},
	{regexp.MustCompile(`^[-+]?0[0-9_]+$`), "is octal to some readers and decimal to others"},
	{regexp.MustCompile(`^[-+]?(0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+)$`), "is a number to some readers and text to others"},
	{regexp.MustCompile(`^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$`), "is a number in base 60 to Ansible and text to others"},
	{regexp.MustCompile(`^[-+]?[0-9][0-9_]*$`), "is a number to some readers and text to others"},
	{regexp.MustCompile(`^[-+]?(\.[0-9_]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?$`), "is a number to some readers and text to others"},
	{regexp.MustCompile(`^([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`), "is a number to some readers and text to others"},
	{regexp.MustCompile(`^[0-9]{4}-[0-9][0-9]?-[0-9][0-9]?([Tt \t].*)?$`), "is a date to Ansible and text to others"},
	{regexp.MustCompile(`^(=|<<)$`), "means something else to Ansible"},
	{regexp.MustCompile(`^~$`), "is nothing, not the home directory"},
}

// classify says what a plain scalar is. Where the readers differ, why is the
// reason and the kind is what its author most likely meant: text.
func classify(plain string) (k kind, why string) {
	switch plain {
	case "", "null", "Null", "NULL":
		return kindNull, ""
	case "true", "True", "TRUE", "false", "False", "FALSE":
		return kindBool, ""
	}
	switch {
	case plainInt.MatchString(plain):
		return kindInt, ""
	case plainFloat.MatchString(plain):
		return kindFloat, ""
	}
	if strings.ContainsAny(plain[:1], "]},[{#&*!|>'\"%@`") || strings.Contains(plain, ": ") || strings.Contains(plain, " #") ||
		strings.HasSuffix(plain, ":") || indicator.MatchString(plain) {
		return kindText, "is not text without quotes to every reader"
	}
	for _, a := range ambiguous {
		if a.form.MatchString(plain) {
			return kindText, a.why
		}
	}
	return kindText, ""
}

// templated reports whether Ansible would evaluate the text.
func templated(text string) bool {
	return strings.Contains(text, "{{") || strings.Contains(text, "{%") || strings.Contains(text, "{#")
}

// unambiguous says how to write an ambiguous scalar so that all read the same.
func unambiguous(plain string) string {
	quoted := `quote it: "` + plain + `"`
	switch strings.ToLower(plain) {
	case "y", "yes", "on":
		return "write true, or quote it for text"
	case "n", "no", "off":
		return "write false, or quote it for text"
	case "~":
		return "write null, or leave the key out"
	}
	if number := decimal(strings.ReplaceAll(plain, "_", "")); number != "" {
		return "write " + number + " for the number, or " + quoted
	}
	return quoted
}

// decimal writes a number of any form as a plain one, or returns "".
func decimal(text string) string {
	if plainInt.MatchString(text) {
		return text
	}
	if digits := strings.TrimLeft(text, "0"); plainInt.MatchString(digits) {
		return digits
	}
	if i, err := strconv.ParseInt(text, 0, 64); err == nil {
		return strconv.FormatInt(i, 10)
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(f) < 1e15 {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return ""
}
