package config

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// tree turns one file's YAML syntax tree into nodes.
type tree struct {
	*checker
	file    string
	anchors map[string]*node
}

func (t *tree) span(n ast.Node) span {
	return t.tokenSpan(n.GetToken())
}

func (t *tree) tokenSpan(tk *token.Token) span {
	at := span{Position: Position{File: t.file}, width: 1}
	if tk == nil || tk.Position == nil {
		return at
	}
	at.Line, at.Column = tk.Position.Line, tk.Position.Column
	text := strings.TrimSpace(tk.Origin)
	text, _, _ = strings.Cut(text, "\n")
	at.width = max(utf8.RuneCountInString(strings.TrimRight(text, " \r")), 1)
	return at
}

// convert never returns nil.
func (t *tree) convert(n ast.Node, depth int) *node {
	if depth > maxDepth {
		t.errorf(t.span(n), "", "nested too deeply")
		return &node{at: t.span(n), size: 1}
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		return t.mapping(n.Values, t.span(n), depth)
	case *ast.MappingValueNode:
		return t.mapping([]*ast.MappingValueNode{n}, t.span(n), depth)
	case *ast.SequenceNode:
		list := &node{kind: kindList, at: t.span(n), size: 1}
		for _, v := range n.Values {
			item := t.convert(v, depth+1)
			list.items = append(list.items, item)
			t.grow(list, item)
		}
		return list
	case *ast.AnchorNode:
		if n.Value == nil {
			return &node{at: t.span(n), size: 1}
		}
		value := t.convert(n.Value, depth+1)
		if n.Name == nil || !anchorName.MatchString(n.Name.GetToken().Value) {
			t.errorf(t.span(n), "write & and a name right after it", "an anchor without a name")
			return value
		}
		name := n.Name.GetToken().Value
		if t.anchors[name] != nil {
			t.errorf(t.span(n), "choose another name", "the anchor %s is there twice", name)
		}
		t.anchors[name] = value
		return value
	case *ast.AliasNode:
		return t.alias(n)
	case *ast.TagNode:
		t.errorf(t.span(n), "leave the tag out; quote what must be text", "the YAML tag %s is not understood by every reader of this file", n.GetToken().Value)
		if n.Value == nil {
			return &node{at: t.span(n), size: 1}
		}
		return t.convert(n.Value, depth+1)
	case *ast.LiteralNode:
		return t.block(n)
	case nil:
		return &node{at: span{Position: Position{File: t.file}}, size: 1}
	default:
		return t.scalar(n.GetToken(), t.span(n), false)
	}
}

func (t *tree) scalar(tk *token.Token, at span, key bool) *node {
	if tk == nil || tk.Type == token.ImplicitNullType {
		return &node{at: at, size: 1}
	}
	n := &node{kind: kindText, at: at, text: tk.Value, size: 1}
	if tk.Type == token.SingleQuoteType || tk.Type == token.DoubleQuoteType {
		return t.checked(n)
	}
	n.plain = true
	if strings.Contains(strings.TrimSpace(tk.Origin), "\n") {
		n.refused = true
		t.errorf(at, "quote it, or write it on one line", "the readers differ on text over several lines without quotes")
		return n
	}
	var why string
	if n.kind, why = classify(tk.Value); why != "" {
		n.refused = true
		hint := unambiguous(tk.Value)
		if key {
			hint = `quote it: "` + tk.Value + `"`
		}
		t.errorf(at, hint, "%s %s", tk.Value, why)
	}
	return t.checked(n)
}

// checked refuses text that Ansible would evaluate.
func (t *tree) checked(n *node) *node {
	if templated(n.text) {
		n.refused = true
		t.errorf(n.at, "write the value itself", "Ansible would take this for a template, nothing else would")
	}
	return n
}

// block reads a block scalar (| or >). The readers differ on its less used forms.
func (t *tree) block(n *ast.LiteralNode) *node {
	out := &node{kind: kindText, at: t.span(n), size: 1}
	source := ""
	if n.Value != nil {
		out.text, source = n.Value.Value, n.Value.GetToken().Origin
	}
	header := ""
	if n.Start != nil {
		header = n.Start.Value
	}
	switch {
	case strings.TrimSpace(out.text) == "":
		t.errorf(out.at, `write ""`, "an empty block is nothing to some readers and text to others")
	case strings.ContainsAny(header, "0123456789"):
		t.errorf(out.at, "leave the number out", "the readers differ on an indentation given by number")
	case trailingSpace.MatchString(source):
		t.errorf(out.at, "remove them", "some readers drop the spaces at the end of a line of this block")
	default:
		return t.checked(out)
	}
	out.refused = true
	return out
}

var anchorName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

var trailingSpace = regexp.MustCompile(`[ \t]+\n`)

func (t *tree) alias(n *ast.AliasNode) *node {
	name := ""
	if n.Value != nil {
		name = n.Value.GetToken().Value
	}
	if value, ok := t.anchors[name]; ok {
		return value
	}
	t.errorf(t.span(n), "write &"+name+" before its first use, and not around it", "*%s has no anchor", name)
	return &node{at: t.span(n), refused: true, size: 1}
}

func (t *tree) mapping(values []*ast.MappingValueNode, at span, depth int) *node {
	m := &node{kind: kindMap, at: at, size: 1}
	var merged *node
	seen := map[string]*node{}
	for i, v := range values {
		if v == nil || v.Key == nil {
			continue
		}
		key := t.key(v.Key)
		if i == 0 {
			m.at = key.at
		}
		value := t.convert(v.Value, depth+1)
		if value.kind == kindNull && value.text == "" {
			value.at = key.at
		}
		t.grow(m, value)
		if v.Key.IsMergeKey() {
			switch {
			case i > 0:
				t.errorf(key.at, "write it once, before every other key", "what << brings in wins over the keys before it for Terraform only")
			case strings.TrimSpace(v.Key.GetToken().Origin) != "<<": // the parser drops it
				t.errorf(key.at, "remove one of the two", "text and then << stand for one value")
			}
			if merged == nil {
				merged = value
			}
			continue
		}
		if first := seen[key.text]; first != nil {
			t.errorf(key.at, "keep one of them", "%s is set twice, first in line %d", key.text, first.at.Line)
			continue
		}
		seen[key.text] = key
		m.entries = append(m.entries, &entry{key: key, value: value})
	}
	if merged != nil {
		t.merge(m, merged)
	}
	return m
}

// merge fills m with what source has and m has not.
func (t *tree) merge(m, source *node) {
	if source.kind != kindMap {
		if !source.refused {
			t.errorf(source.at, "write << with one map", "Terraform merges a map only, not %s", source.kind)
		}
		return
	}
	for _, e := range source.entries {
		if m.get(e.key.text) == nil {
			m.entries = append(m.entries, e)
		}
	}
}

func (t *tree) key(k ast.MapKeyNode) *node {
	at := t.span(k)
	if k.IsMergeKey() {
		return &node{kind: kindText, at: at, text: "<<"}
	}
	tk := k.GetToken()
	if mk, ok := k.(*ast.MappingKeyNode); ok && mk.Value != nil {
		tk, at = mk.Value.GetToken(), t.span(mk.Value)
	}
	key := t.scalar(tk, at, true)
	if key.kind != kindText {
		t.errorf(at, `quote it: "`+tk.Value+`"`, "a key must be text, not %s", key.kind)
		key.kind, key.text = kindText, tk.Value
	}
	return key
}

// grow adds the size of a child and stops trees that aliases blow up.
func (t *tree) grow(parent, child *node) {
	parent.size += child.size
	if parent.size > maxNodes {
		t.errorf(child.at, "use fewer aliases", "the file grows beyond all bounds")
		*child = node{at: child.at, size: 1}
		parent.size = 1
	}
}
