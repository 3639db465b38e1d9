package config

import (
	"reflect"
	"strings"

	"github.com/k3lab/k3lab/internal/fault"
)

// Set changes one value in the text of one of Files, a scalar that is written
// there under its path, k3s.version. Everything else stays byte for byte. The error
// is of kind fault.Invalid where src is not YAML, and fault.Failed where the value
// has to be changed by hand.
func Set(file string, src []byte, path, text string) ([]byte, error) {
	c := &checker{sources: newSources()}
	root := c.parse(file, src)
	if root == nil {
		return nil, (&Problems{list: sorted(c.problems)}).Err()
	}
	byHand := fault.New(fault.Failed, file, "write "+path+": "+text+" by hand", "%s cannot be changed without changing more", path)
	at := root.below(path)
	if at == nil || at.kind == kindMap || at.kind == kindList {
		return nil, byHand
	}
	if at.text == text {
		return src, nil
	}
	t := newText(src)
	if t.replace(at.at, text) == "" {
		return nil, byHand
	}
	out := t.edited()
	again := (&checker{sources: newSources()}).parse(file, out)
	if again == nil || again.below(path) == nil || again.below(path).text != text {
		return nil, byHand
	}
	// Through an alias other values could have changed with it.
	want := root.value()
	put(want, path, again.below(path).value())
	if !reflect.DeepEqual(again.value(), want) {
		return nil, byHand
	}
	return out, nil
}

// below is the node under a path of keys, or nil.
func (n *node) below(path string) *node {
	for name := range strings.SplitSeq(path, ".") {
		e := n.get(name)
		if e == nil {
			return nil
		}
		n = e.value
	}
	return n
}

// put replaces the value under a path of keys, all of which are there.
func put(in any, path string, value any) {
	name, rest, deeper := strings.Cut(path, ".")
	m, ok := in.(map[string]any)
	switch {
	case !ok:
	case deeper:
		put(m[name], rest, value)
	default:
		m[name] = value
	}
}
