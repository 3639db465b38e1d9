package existing

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// Settings are what K3s was started with, by the keys of its config.yaml. A
// value is a string, a bool, or for what may be given several times a []string.
type Settings map[string]any

// Text is a setting as text; empty where it is not set.
func (s Settings) Text(key string) string {
	switch v := s[key].(type) {
	case nil:
		return ""
	case []string:
		return strings.Join(v, ",")
	default:
		return fmt.Sprint(v)
	}
}

// List is a setting that may be given several times.
func (s Settings) List(key string) []string {
	v, _ := s[key].([]string)
	return v
}

// Has reports whether a switch is on.
func (s Settings) Has(key string) bool { return s[key] == true }

// switches are K3s's settings that are on or off; on the command line they take
// no value.
var switches = []string{
	"alsologtostderr", "cluster-init", "cluster-reset", "debug", "disable-agent", "disable-apiserver", "disable-apiserver-lb",
	"disable-cloud-controller", "disable-controller-manager", "disable-default-registry-endpoint", "disable-etcd",
	"disable-helm-controller", "disable-kube-proxy", "disable-network-policy", "disable-scheduler", "disable-selinux",
	"docker", "embedded-registry", "enable-pprof", "etcd-disable-snapshots", "etcd-expose-metrics", "etcd-s3",
	"etcd-s3-insecure", "etcd-s3-skip-ssl-verify", "etcd-snapshot-compress", "flannel-external-ip", "flannel-ipv6-masq",
	"kine-tls", "log-to-stderr", "multi-cluster-cidr", "nonroot-devices", "prefer-bundled-bin", "protect-kernel-defaults", "rootless",
	"secrets-encryption", "selinux", "supervisor-metrics", "tls-san-security", "with-node-id",
}

// lists are those that may be given several times. Of some a value may hold
// several, with commas between them.
var (
	lists = []string{
		"airgap-extra-registry", "etcd-arg", "kube-apiserver-arg", "kube-cloud-controller-manager-arg", "kube-controller-manager-arg",
		"kube-proxy-arg", "kube-scheduler-arg", "kubelet-arg", "node-label", "node-taint",
	}
	commaLists = []string{
		"cluster-cidr", "cluster-dns", "disable", "node-external-dns", "node-external-ip", "node-internal-dns", "node-ip", "service-cidr", "tls-san",
	}
)

// IsSecret reports whether a setting of K3s is, or leads to, a secret.
func IsSecret(key string) bool {
	return slices.Contains([]string{
		"token", "token-file", "agent-token", "agent-token-file", "vpn-auth",
		"etcd-s3-access-key", "etcd-s3-secret-key", "etcd-s3-session-token",
	}, key)
}

// short are the settings' other names on the command line.
var short = map[string]string{
	"t": "token", "s": "server", "d": "data-dir", "o": "write-kubeconfig", "c": "config", "l": "log", "i": "node-ip",
	"kube-controller-arg": "kube-controller-manager-arg", "kube-cloud-controller-arg": "kube-cloud-controller-manager-arg",
}

// environment are the variables K3s takes settings from.
var environment = map[string]string{
	"K3S_TOKEN": "token", "K3S_TOKEN_FILE": "token-file", "K3S_URL": "server", "K3S_NODE_NAME": "node-name",
	"K3S_AGENT_TOKEN": "agent-token", "K3S_AGENT_TOKEN_FILE": "agent-token-file", "K3S_CLUSTER_INIT": "cluster-init",
	"K3S_DATASTORE_ENDPOINT": "datastore-endpoint", "K3S_KUBECONFIG_OUTPUT": "write-kubeconfig",
	"K3S_KUBECONFIG_MODE": "write-kubeconfig-mode", "K3S_KUBECONFIG_GROUP": "write-kubeconfig-group",
	"K3S_LB_SERVER_PORT": "lb-server-port", "K3S_RESOLV_CONF": "resolv-conf", "K3S_SELINUX": "selinux", "K3S_DEBUG": "debug",
	"K3S_CONFIG_FILE": "config", "K3S_VPN_AUTH": "vpn-auth", "K3S_VPN_AUTH_FILE": "vpn-auth-file",
}

// further are the names of variables by which proxies, credentials and Go's own
// behaviour are given to K3s and to its containerd.
func further(env []string) []string {
	var names []string
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		upper := strings.ToUpper(name)
		if value != "" && (strings.HasSuffix(upper, "_PROXY") || strings.HasPrefix(upper, "AWS_") ||
			slices.Contains([]string{"GODEBUG", "GOGC", "GOMAXPROCS", "GOMEMLIMIT"}, upper)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// settings weighs them as K3s does: the command line over the files, a later file
// over an earlier one, the files over the environment. args begin after
// "server" or "agent".
func settings(files []string, env, args []string) (Settings, error) {
	out := Settings{}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if key, ok := environment[name]; ok && value != "" {
			out.put(key, value, false)
		}
	}
	fromFiles := Settings{}
	for _, text := range files {
		if err := fromFiles.file(text); err != nil {
			return nil, err
		}
	}
	maps.Copy(out, fromFiles)
	given, err := flags(args, env)
	maps.Copy(out, given)
	return out, err
}

// flags reads a command line.
func flags(args, env []string) (Settings, error) {
	out := Settings{}
	expand := func(text string) string {
		return os.Expand(text, func(name string) string { return valueOf(env, name) })
	}
	for i := 0; i < len(args); i++ {
		name, ok := strings.CutPrefix(args[i], "-")
		if !ok || name == "" {
			return nil, fmt.Errorf("command line: %q is no flag", args[i])
		}
		name, value, given := strings.Cut(strings.TrimPrefix(name, "-"), "=")
		if long, ok := short[name]; ok {
			name = long
		}
		switch {
		case given:
		case slices.Contains(switches, name):
			value = "true"
		case i+1 < len(args):
			i++
			value = args[i]
		default:
			return nil, fmt.Errorf("command line: --%s has no value", name)
		}
		out.put(name, expand(value), true)
	}
	return out, nil
}

func valueOf(env []string, name string) string {
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}

// put sets a value that is written as text; grow adds to a list.
func (s Settings) put(key, value string, grow bool) {
	switch {
	case slices.Contains(switches, key):
		s[key] = value == "true" || value == "1"
	case slices.Contains(lists, key), slices.Contains(commaLists, key):
		var before []string
		if grow {
			before = s.List(key)
		}
		s[key] = slices.Concat(before, split(key, value))
	default:
		s[key] = value
	}
}

func split(key, value string) []string {
	if !slices.Contains(commaLists, key) {
		return []string{value}
	}
	var out []string
	for _, part := range strings.Split(value, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// file lays a config.yaml over what there is. A key that ends in + adds to a list.
func (s Settings) file(text string) error {
	var read map[string]any
	if err := yaml.Unmarshal([]byte(text), &read); err != nil {
		return fmt.Errorf("config.yaml: %s", yaml.FormatError(err, false, false)) // its lines may hold a token
	}
	for _, written := range slices.Sorted(maps.Keys(read)) {
		key, grow := strings.CutSuffix(written, "+")
		values, many := read[written].([]any)
		if !many {
			values = []any{read[written]}
		}
		if read[written] == nil {
			continue
		}
		for i, v := range values {
			s.put(key, fmt.Sprint(v), grow || i > 0)
		}
	}
	return nil
}
