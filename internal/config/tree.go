package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of a settings file, far above any lab and far below what would make the
// YAML parser run out of stack or time.
const (
	maxFileBytes = 1 << 18
	maxTokens    = 30_000
	maxDepth     = 64
	maxNodes     = 1 << 18 // aliases counted as often as they are used
)

// node is one value of a settings file: the YAML tree with aliases and merge
// keys resolved and every scalar classified.
type node struct {
	kind    kind
	at      span
	text    string // of a scalar
	plain   bool   // a scalar without quotes
	refused bool   // it has been reported: nothing more is said of it
	entries []*entry
	items   []*node
	size    int
}

type entry struct {
	key   *node
	value *node
}

// get returns the entry with that key, or nil.
func (n *node) get(key string) *entry {
	for _, e := range n.entries {
		if e.key.text == key {
			return e
		}
	}
	return nil
}

// value returns the node as a plain Go value.
func (n *node) value() any {
	switch n.kind {
	case kindNull:
		return nil
	case kindBool:
		return strings.EqualFold(n.text, "true")
	case kindInt:
		i, err := strconv.Atoi(n.text)
		if err != nil {
			return n.text // classify lets no such number pass
		}
		return i
	case kindFloat:
		f, err := strconv.ParseFloat(n.text, 64)
		if err != nil {
			return n.text
		}
		return f
	case kindMap:
		m := make(map[string]any, len(n.entries))
		for _, e := range n.entries {
			m[e.key.text] = e.value.value()
		}
		return m
	case kindList:
		l := make([]any, 0, len(n.items))
		for _, item := range n.items {
			l = append(l, item.value())
		}
		return l
	default:
		return n.text
	}
}

// parse reads one file into a tree. It returns nil when the text is not YAML;
// what is wrong with it, or with single scalars, is in c.
func (c *checker) parse(file string, src []byte) *node {
	c.sources.addFile(file, src)
	whole := span{Position: Position{File: file}}
	switch {
	case len(src) > maxFileBytes:
		c.errorf(whole, "split the lab, or remove what is not settings", "the file is larger than %d KiB", maxFileBytes>>10)
		return nil
	case !utf8.Valid(src):
		c.errorf(whole, "save it as UTF-8", "the file is not UTF-8 text")
		return nil
	}
	if c.tabs(file) {
		return nil
	}
	parsed, err := parseYAML(normalised(src))
	if err != nil {
		c.syntax(file, err)
		return nil
	}
	t := tree{checker: c, file: file, anchors: map[string]*node{}}
	var root *node
	for _, doc := range parsed.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if root != nil {
			c.errorf(t.convert(doc.Body, 0).at, "keep one document per file", "a second YAML document: only the first would be read")
			break
		}
		root = t.convert(doc.Body, 0)
	}
	if root == nil || root.kind == kindNull {
		root = &node{kind: kindMap, at: whole}
	}
	if root.kind != kindMap {
		c.errorf(root.at, "write key: value lines", "the file must be a map, not %s", root.kind)
		return nil
	}
	return root
}

// tabs refuses tabs outside of quotes and comments, which no two readers treat
// alike.
func (c *checker) tabs(file string) (found bool) {
	for i, line := range c.sources.lines[file] {
		before, _, tab := strings.Cut(line, "\t")
		if tab && !strings.ContainsAny(before, `#"'`) {
			at := Position{File: file, Line: i + 1, Column: utf8.RuneCountInString(before) + 1}
			c.errorf(span{Position: at}, "write spaces", "a tab, which only some readers take for a space")
			found = true
		}
	}
	return found
}

// parseYAML keeps a fault of the YAML library from becoming one of ours.
func parseYAML(src string) (f *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			f, err = nil, fmt.Errorf("the YAML parser fails on it: %v", r)
		}
	}()
	tokens := lexer.Tokenize(src)
	if len(tokens) > maxTokens {
		return nil, &yaml.SyntaxError{Message: "too long to be settings", Token: tokens[maxTokens]}
	}
	if at := tooDeep(tokens); at != nil {
		return nil, &yaml.SyntaxError{Message: "nested too deeply", Token: at}
	}
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

// tooDeep returns the token that nests deeper than the recursive parser should
// go, or nil.
func tooDeep(tokens token.Tokens) *token.Token {
	depth, dashes, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position != nil && t.Position.Line != line {
			line, dashes = t.Position.Line, 0
		}
		switch t.Type { //nolint:exhaustive // only what nests
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType:
			dashes++
		}
		if depth > maxDepth || dashes > maxDepth || t.Position != nil && t.Position.IndentLevel > maxDepth {
			return t
		}
	}
	return nil
}

func (c *checker) syntax(file string, err error) {
	at := span{Position: Position{File: file}}
	message := ""
	var yamlError yaml.Error
	if errors.As(err, &yamlError) {
		message = yamlError.GetMessage() // its Error draws the source, at great length for some
		if t := yamlError.GetToken(); t != nil && t.Position != nil {
			at.Line, at.Column = t.Position.Line, t.Position.Column
		}
	} else {
		message = err.Error()
	}
	message, _, _ = strings.Cut(message, "\n")
	const hint = "look for a missing quote, bracket, colon, or space after a colon, here or in the line above"
	c.errorf(at, hint, "not valid YAML: %s", printable(message))
}
