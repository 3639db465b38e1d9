package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// object reads one map of the settings, value by value. A value that is missing,
// null or wrong reads as the fallback; wrong ones are reported. Everything read
// is entered in the side index.
type object struct {
	*checker
	key  string // of Sources
	node *node  // nil: no map stands there, and that has been reported
}

// get returns the value under name and its key, and false where nothing is set.
func (o object) get(name string) (*node, string, bool) {
	key := o.key + "." + name
	if o.node == nil {
		return nil, key, false
	}
	e := o.node.get(name)
	if e == nil {
		return nil, key, false
	}
	at := e.value.at
	if e.value.kind == kindMap || e.value.kind == kindList {
		at = e.key.at
	}
	o.sources.spans[key] = at
	return e.value, key, e.value.kind != kindNull
}

// require reports which of the names are not set.
func (o object) require(names ...string) {
	if o.node == nil {
		return
	}
	var missing []string
	for _, name := range names {
		if _, _, ok := o.get(name); !ok {
			missing = append(missing, name)
		}
	}
	if missing == nil {
		return
	}
	message, hint := missing[0]+" is missing", "add it"
	if len(missing) > 1 {
		message, hint = strings.Join(missing, ", ")+" are missing", "add them"
	}
	if what := label(o.key); what != o.key { // not the file itself
		message = what + ": " + message
	}
	o.errorf(o.sources.span(o.key), hint, "%s", message)
}

// scalar returns the value under name when it is of the kind wanted.
func (o object) scalar(name string, want kind) (text, key string, ok bool) {
	n, key, ok := o.get(name)
	if !ok || !o.expect(n, key, want) {
		return "", key, false
	}
	return n.text, key, true
}

func (c *checker) expect(n *node, key string, want kind) bool {
	switch {
	case n.refused:
		return false
	case n.kind == want:
		return true
	}
	got, hint := n.kind.String(), ""
	if n.kind != kindMap && n.kind != kindList && n.kind != kindNull {
		got = fmt.Sprintf("%q", n.text)
		switch want { //nolint:exhaustive // no advice for the others
		case kindText:
			hint = fmt.Sprintf("quote it: %q", n.text)
		case kindList:
			hint = fmt.Sprintf("write [%s]", n.text)
		case kindMap:
			hint = "write key: value lines under it"
		}
	}
	if n.kind == kindText && !n.plain {
		if k, why := classify(n.text); k == want && why == "" {
			hint = "leave the quotes out: " + n.text
		}
	}
	if n.kind == kindText && strings.HasSuffix(key, "_mib") {
		if mib, ok := toMiB(n); ok {
			hint = "write " + mib
		}
	}
	if n.kind == kindText && strings.HasSuffix(key, "_gib") {
		if gib, ok := toGiB(n); ok {
			hint = "write " + gib
		}
	}
	c.errorf(n.at, hint, "%s: must be %s, not %s", label(key), want, got)
	return false
}

func (o object) text(name, fallback string) string {
	if text, _, ok := o.scalar(name, kindText); ok {
		return text
	}
	return fallback
}

func (o object) bool(name string, fallback bool) bool {
	if text, _, ok := o.scalar(name, kindBool); ok {
		return strings.EqualFold(text, "true")
	}
	return fallback
}

// int reads a whole number from least to most.
func (o object) int(name string, fallback, least, most int) int {
	n, key, ok := o.get(name)
	if !ok || !o.expect(n, key, kindInt) {
		return fallback
	}
	i, ok := n.value().(int)
	if !ok || i < least || i > most {
		o.errorAt(key, fmt.Sprintf("choose %d to %d", least, most), "%s is out of range", n.text)
		return fallback
	}
	return i
}

// choice reads one of a few words.
func (o object) choice(name, fallback string, valid ...string) string {
	text, key, ok := o.scalar(name, kindText)
	if !ok {
		return fallback
	}
	for _, v := range valid {
		if v == text {
			return text
		}
	}
	o.errorAt(key, "valid: "+strings.Join(valid, ", "), "%q is not known", text)
	return fallback
}

// element is one item of a list, or one value of a map with free keys.
type element struct {
	key  string // of Sources
	name string // the map's key; "" in a list
	node *node
	at   span // of the map's key
}

// list returns the items under name.
func (o object) list(name string) []element {
	n, key, ok := o.get(name)
	if !ok || !o.expect(n, key, kindList) {
		return nil
	}
	var out []element
	for i, item := range n.items {
		e := element{key: fmt.Sprintf("%s[%d]", key, i), node: item}
		o.sources.spans[e.key] = item.at
		out = append(out, e)
	}
	return out
}

// entries returns the values of the map under name, in file order.
func (o object) entries(name string) []element {
	n, key, ok := o.get(name)
	if !ok {
		return nil
	}
	if n.kind == kindList && !n.refused {
		o.errorf(n.at, "write one key per entry, its name, instead of a list", "%s: must be a map keyed by name, not a list", label(key))
		return nil
	}
	if !o.expect(n, key, kindMap) {
		return nil
	}
	var out []element
	for _, entry := range n.entries {
		e := element{key: key + "." + entry.key.text, name: entry.key.text, node: entry.value, at: entry.key.at}
		o.sources.spans[e.key] = entry.key.at
		if entry.value.kind != kindMap && entry.value.kind != kindNull {
			o.sources.spans[e.key] = entry.value.at
		}
		out = append(out, e)
	}
	return out
}

// texts returns the items under name that are text, each with its key.
func (o object) texts(name string) []element {
	var out []element
	for _, e := range o.list(name) {
		if o.expect(e.node, e.key, kindText) {
			out = append(out, e)
		}
	}
	return out
}

// strings returns the texts under name.
func (o object) strings(name string) []string {
	var out []string
	for _, e := range o.texts(name) {
		out = append(out, e.node.text)
	}
	return out
}

// object returns the map under name; it may be empty.
func (o object) object(name string) object {
	n, key, ok := o.get(name)
	if !ok {
		return object{o.checker, key, &node{kind: kindMap}}
	}
	return o.objectOf(element{key: key, node: n})
}

func (c *checker) objectOf(e element) object {
	switch n := e.node; {
	case n.kind == kindNull && !n.refused:
		return object{c, e.key, &node{kind: kindMap}}
	case c.expect(n, e.key, kindMap):
		return object{c, e.key, n}
	default:
		return object{c, e.key, nil}
	}
}

// address reads an IPv4 address, as Terraform's templates expect.
func (o object) address(name string) netip.Addr {
	text, key, ok := o.scalar(name, kindText)
	if !ok {
		return netip.Addr{}
	}
	return o.parseAddress(text, key)
}

func (c *checker) parseAddress(text, key string) netip.Addr {
	a, err := netip.ParseAddr(text)
	if err == nil && a.Is4() {
		return a
	}
	hint := "write an address such as 192.168.10.11"
	if p, err := netip.ParsePrefix(text); err == nil {
		hint = fmt.Sprintf("write %s; the prefix length stands in network.yaml, cidr", p.Addr())
	}
	c.errorAt(key, hint, "%q is not an IPv4 address", text)
	return netip.Addr{}
}

// network reads an IPv4 network.
func (o object) network(name, fallback string) netip.Prefix {
	text, key, ok := o.scalar(name, kindText)
	if !ok {
		if fallback == "" {
			return netip.Prefix{}
		}
		return netip.MustParsePrefix(fallback)
	}
	p := o.parseNetwork(text, key)
	if p.IsValid() && !p.Addr().Is4() {
		o.errorAt(key, "write a network such as 192.168.10.0/24", "%s is not an IPv4 network", text)
		return netip.Prefix{}
	}
	return p
}

func (c *checker) parseNetwork(text, key string) netip.Prefix {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		c.errorAt(key, "write a network such as 192.168.10.0/24", "%q is not a network", text)
		return netip.Prefix{}
	}
	if p != p.Masked() {
		c.errorAt(key, "write "+p.Masked().String(), "%s is an address inside a network", text)
		return netip.Prefix{}
	}
	return p
}
