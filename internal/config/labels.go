package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	qualifiedPart = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)
	dnsSubdomain  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	taintForm     = regexp.MustCompile(`^([^=:]+)(?:=([^=:]*))?:([A-Za-z]+)$`)
)

// labels reads the Kubernetes labels of a machine.
func (c *checker) labels(o object) map[string]string {
	var out map[string]string
	for _, e := range o.entries("labels") {
		if !c.expect(e.node, e.key, kindText) {
			continue
		}
		value := e.node.text
		switch {
		case !labelKey(e.name):
			c.errorAt(e.key, "write it as prefix/name or name: letters, digits, -, _ and .", "%q is not a label key", e.name)
		case value != "" && !qualifiedPart.MatchString(value):
			c.errorAt(e.key, "use letters, digits, -, _ and ., at most 63", "%q is not a label value", value)
		case !labelAllowed(e.name):
			c.errorAt(e.key, "choose a prefix of your own, such as k3lab.io/", "kubelet does not start with %s: it may not give itself that label", e.name)
		default:
			if out == nil {
				out = map[string]string{}
			}
			out[e.name] = value
		}
	}
	return out
}

func labelKey(key string) bool {
	prefix, name, ok := strings.Cut(key, "/")
	if !ok {
		return qualifiedPart.MatchString(key)
	}
	return len(prefix) <= 253 && dnsSubdomain.MatchString(prefix) && qualifiedPart.MatchString(name)
}

// labelAllowed is kubelet's own rule: of kubernetes.io and k8s.io only a few.
func labelAllowed(key string) bool {
	prefix, _, ok := strings.Cut(key, "/")
	if !ok {
		return true
	}
	within := func(domain string) bool { return prefix == domain || strings.HasSuffix(prefix, "."+domain) }
	if !within("kubernetes.io") && !within("k8s.io") {
		return true
	}
	if within("kubelet.kubernetes.io") || within("node.kubernetes.io") {
		return true
	}
	return slices.Contains([]string{
		"beta.kubernetes.io/arch", "beta.kubernetes.io/instance-type", "beta.kubernetes.io/os",
		"failure-domain.beta.kubernetes.io/region", "failure-domain.beta.kubernetes.io/zone",
		"kubernetes.io/arch", "kubernetes.io/hostname", "kubernetes.io/os",
		"topology.kubernetes.io/region", "topology.kubernetes.io/zone",
	}, key)
}

// taint reports whether the text is key=value:Effect or key:Effect.
func (c *checker) taint(e element) bool {
	effects := []string{"NoSchedule", "PreferNoSchedule", "NoExecute"}
	m := taintForm.FindStringSubmatch(e.node.text)
	switch {
	case m == nil || !labelKey(m[1]) || m[2] != "" && !qualifiedPart.MatchString(m[2]):
		c.errorAt(e.key, `write "key=value:NoSchedule"`, "%q is not a taint", e.node.text)
	case !slices.Contains(effects, m[3]):
		hint := "valid: " + strings.Join(effects, ", ")
		if near := nearest(m[3], effects); near != "" {
			hint = "did you mean " + near + "? " + hint
		}
		c.errorAt(e.key, hint, "%q is not a taint's effect", m[3])
	default:
		return true
	}
	return false
}

// indexed is the key of a list's item.
func indexed(key string, i int) string { return fmt.Sprintf("%s[%d]", key, i) }
