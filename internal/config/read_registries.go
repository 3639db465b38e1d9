package config

import (
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Registries say where nodes pull images from: k3s.registries.
type Registries struct {
	Mirrors []Mirror         // by host
	Configs []RegistryConfig // by host
}

// Mirror is asked for a registry's images in its place.
type Mirror struct {
	Host      string // of the images' names; * for every registry
	Endpoints []string
	Rewrite   map[string]string // regular expression → what repositories that match are called there
}

// RegistryConfig is how a registry or mirror is talked to.
type RegistryConfig struct {
	Host               string
	Username           string // empty: nobody logs in
	PasswordSecret     string // key in the secrets file
	CAFile             string // relative to the workspace; empty: the system's roots
	InsecureSkipVerify bool
}

func registriesShape() *shape {
	mirror := &shape{
		keys:  keys("endpoints", "rewrite"),
		other: foreignNames(rename("endpoints", toList, "endpoint"), rename("rewrite", same, "rewrites")),
	}
	// password is no setting, but deserves more than that it is not known.
	auth := &shape{
		keys:  keys("username", "password_secret", "password"),
		other: foreignNames(rename("username", same, "user")),
	}
	tls := &shape{
		keys:  keys("ca_file", "insecure_skip_verify"),
		other: foreignNames(rename("ca_file", same, "ca")),
	}
	return &shape{keys: map[string]*shape{
		"mirrors": {each: mirror},
		"configs": {each: &shape{keys: map[string]*shape{"auth": auth, "tls": tls}}},
	}}
}

func (c *checker) registries(o object) Registries {
	var r Registries
	for _, e := range o.entries("mirrors") {
		m := c.objectOf(e)
		if !c.registryHost(e) || m.node == nil {
			continue
		}
		r.Mirrors = append(r.Mirrors, Mirror{Host: e.name, Endpoints: c.endpoints(m), Rewrite: c.rewrites(m)})
	}
	for _, e := range o.entries("configs") {
		config := c.objectOf(e)
		if !c.registryHost(e) || config.node == nil {
			continue
		}
		r.Configs = append(r.Configs, c.registryConfig(e.name, config))
	}
	slices.SortFunc(r.Mirrors, func(a, b Mirror) int { return strings.Compare(a.Host, b.Host) })
	slices.SortFunc(r.Configs, func(a, b RegistryConfig) int { return strings.Compare(a.Host, b.Host) })
	return r
}

// registryHost checks the name of a registry as it stands in the names of images.
func (c *checker) registryHost(e element) bool {
	host, port, ported := strings.Cut(e.name, ":")
	number, err := strconv.Atoi(port)
	_, notAddress := netip.ParseAddr(host)
	switch {
	case e.name == "*":
	case strings.Contains(e.name, "/"):
		near := strings.TrimPrefix(strings.TrimPrefix(e.name, "https://"), "http://")
		near, _, _ = strings.Cut(near, "/")
		c.errorAt(e.key, "write "+near, "%q is no registry's name", e.name)
		return false
	case !isDomain(host) && notAddress != nil, ported && (err != nil || number < 1 || number > 65535):
		c.errorAt(e.key, "write a name such as docker.io or registry.home.arpa:5000", "%q is no registry's name", e.name)
		return false
	}
	return true
}

func (c *checker) endpoints(o object) []string {
	var out []string
	for _, e := range o.texts("endpoints") {
		u, err := url.Parse(e.node.text)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
			c.errorAt(e.key, "write an address such as https://registry.home.arpa:5000", "%q is no address of a registry", e.node.text)
		case u.User != nil:
			c.errorAt(e.key, "k3lab secrets set registry.NAME, then auth.username and auth.password_secret in configs", "a password does not belong into an address")
		default:
			out = append(out, e.node.text)
		}
	}
	return out
}

func (c *checker) rewrites(o object) map[string]string {
	var out map[string]string
	for _, e := range o.entries("rewrite") {
		if !c.expect(e.node, e.key, kindText) {
			continue
		}
		if _, err := regexp.Compile(e.name); err != nil {
			c.errorf(e.at, "", "%s: %q is no regular expression", label(o.key+".rewrite"), e.name)
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[e.name] = e.node.text
	}
	return out
}

// secretKey is a path of keys in the secrets file.
var secretKey = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

func (c *checker) registryConfig(host string, o object) RegistryConfig {
	r := RegistryConfig{Host: host}
	if _, key, ok := o.get("auth"); ok {
		auth := o.object("auth")
		if _, at, there := auth.get("password"); there {
			c.errorAt(at, "k3lab secrets set registry.NAME, then password_secret: registry.NAME", "a password does not belong into the settings")
		} else {
			auth.require("username", "password_secret")
		}
		r.Username, r.PasswordSecret = auth.text("username", ""), auth.text("password_secret", "")
		if r.PasswordSecret != "" && !secretKey.MatchString(r.PasswordSecret) {
			c.errorAt(key+".password_secret", "write the key under which k3lab secrets set has it, such as registry.home", "it is no key of a secret")
		}
	}
	tls := o.object("tls")
	r.CAFile, r.InsecureSkipVerify = tls.text("ca_file", ""), tls.bool("insecure_skip_verify", false)
	if r.CAFile != "" && r.InsecureSkipVerify {
		c.warnAt(tls.key+".insecure_skip_verify", "remove one of them", "nothing is verified, so ca_file has no effect")
	}
	return r
}

// Secrets are the keys of the secrets that registries need, sorted.
func (r Registries) Secrets() []string {
	keys := map[string]bool{}
	for _, config := range r.Configs {
		if config.PasswordSecret != "" {
			keys[config.PasswordSecret] = true
		}
	}
	return slices.Sorted(maps.Keys(keys))
}
