package desired

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
)

// Files of the hardened API server.
const (
	// EncryptionPath exists on a server whose cluster has an encryption
	// configuration. K3s shares it among the servers.
	EncryptionPath = "/var/lib/rancher/k3s/server/cred/encryption-config.json"

	admissionPath   = configDir + "/admission.yaml"
	auditPolicyPath = configDir + "/audit-policy.yaml"
	auditLogDir     = "/var/log/k3s"
	auditLogPath    = auditLogDir + "/audit.log"
)

const (
	kubeProxyMetrics = 10249

	tlsMinVersion = "VersionTLS12"
	// tlsCipherSuites are those of TLS 1.2 with forward secrecy and authenticated
	// encryption; those of TLS 1.3 cannot be chosen and are all good.
	tlsCipherSuites = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384," +
		"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256," +
		"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"
)

// hardenedNode are the settings of the CIS profile that servers and agents
// share. K3s itself turns off anonymous requests and the read-only port of
// kubelet, and renews kubelet's certificates.
func hardenedNode(lab *config.Lab) map[string]any {
	if lab.Security.Profile != config.ProfileCIS {
		return nil
	}
	return map[string]any{
		"protect-kernel-defaults": true,
		"kubelet-arg": []string{
			"make-iptables-util-chains=true",
			"pod-max-pids=4096",
			"streaming-connection-idle-timeout=5m",
			"tls-cipher-suites=" + tlsCipherSuites,
			"tls-min-version=" + tlsMinVersion,
		},
	}
}

// hardenedServer are the settings of the CIS profile for the control plane. K3s
// itself turns off anonymous requests and profiling.
func hardenedServer(lab *config.Lab) map[string]any {
	if lab.Security.Profile != config.ProfileCIS {
		return nil
	}
	audit := lab.Security.Audit
	return map[string]any{
		"kube-apiserver-arg": []string{
			"admission-control-config-file=" + admissionPath,
			fmt.Sprintf("audit-log-maxage=%d", audit.MaxAgeDays),
			fmt.Sprintf("audit-log-maxbackup=%d", audit.MaxBackups),
			fmt.Sprintf("audit-log-maxsize=%d", audit.MaxSizeMiB),
			"audit-log-path=" + auditLogPath,
			"audit-policy-file=" + auditPolicyPath,
			"enable-admission-plugins=NodeRestriction,EventRateLimit",
			"service-account-extend-token-expiration=false",
			"service-account-lookup=true",
			"tls-cipher-suites=" + tlsCipherSuites,
			"tls-min-version=" + tlsMinVersion,
		},
		"kube-controller-manager-arg": []string{"terminated-pod-gc-threshold=100"},
	}
}

// metricsOf has a node's components serve their metrics on its own address, and
// not on every one it may get, such as the VIP. Controller manager and scheduler
// ask who wants them; etcd and kube-proxy do not.
func metricsOf(lab *config.Lab, m *config.Machine) map[string]any {
	if !lab.Security.ExposeMetrics {
		return nil
	}
	out := map[string]any{"kube-proxy-arg": []string{"metrics-bind-address=" + netip.AddrPortFrom(m.IP, kubeProxyMetrics).String()}}
	if m.Role == config.RoleServer {
		out["etcd-expose-metrics"] = true
		out["kube-controller-manager-arg"] = []string{"bind-address=" + m.IP.String()}
		out["kube-scheduler-arg"] = []string{"bind-address=" + m.IP.String()}
	}
	return out
}

// add lays settings of ours into others of ours; lists grow.
func add(into, more map[string]any) {
	for key, value := range more {
		if list, ok := into[key].([]string); ok {
			value = slices.Concat(list, value.([]string)) //nolint:errcheck // a key is a list in all of ours or in none
		}
		into[key] = value
	}
}

// hardeningFiles are what the hardened API server reads and writes, and the IDs
// of those it reads only when it starts. Without the profile they are removed,
// but what was logged stays.
func hardeningFiles(lab *config.Lab) (resources []converger.Resource, restartOn []string, err error) {
	if lab.Security.Profile != config.ProfileCIS {
		return []converger.Resource{
			both(converger.Resource{Absent: &converger.Absent{Path: admissionPath}}),
			both(converger.Resource{Absent: &converger.Absent{Path: auditPolicyPath}}),
		}, nil, nil
	}
	admission, err := marshal(admissionConfig(lab.Security.PodSecurity))
	if err != nil {
		return nil, nil, err
	}
	return []converger.Resource{
		both(directory(auditLogDir, 0o700)),
		both(file(auditPolicyPath, header+auditPolicy, 0o600)),
		both(file(admissionPath, admission, 0o600)),
	}, []string{"file " + admissionPath, "file " + auditPolicyPath}, nil
}

// both marks what belongs to K3s and to its hardening: K3s does not start without
// the files its settings name.
func both(r converger.Resource) converger.Resource {
	r.Tags = []string{TagHardening, TagK3s}
	return r
}

// admissionConfig sets the Pod Security Standards of namespaces without labels,
// and bounds how many events are written: a pod that fails all the time must not
// fill the datastore.
func admissionConfig(p config.PodSecurity) map[string]any {
	type object = map[string]any
	return object{
		"apiVersion": "apiserver.config.k8s.io/v1",
		"kind":       "AdmissionConfiguration",
		"plugins": []object{
			{"name": "PodSecurity", "configuration": object{
				"apiVersion": "pod-security.admission.config.k8s.io/v1",
				"kind":       "PodSecurityConfiguration",
				"defaults": object{
					"enforce": p.Enforce, "enforce-version": "latest",
					"warn": p.Warn, "warn-version": "latest",
					"audit": p.Audit, "audit-version": "latest",
				},
				"exemptions": object{"namespaces": exempt(p)},
			}},
			{"name": "EventRateLimit", "configuration": object{
				"apiVersion": "eventratelimit.admission.k8s.io/v1alpha1",
				"kind":       "Configuration",
				"limits":     []object{{"type": "Server", "qps": 5000, "burst": 20000}},
			}},
		},
	}
}

// exempt are the namespaces no standard is held against. What K3s itself runs in
// kube-system needs privileges.
func exempt(p config.PodSecurity) []string {
	names := append([]string{"kube-system"}, p.Exempt...)
	slices.Sort(names)
	return slices.Compact(names)
}

// merge lays the user's settings over ours. Theirs win: a key replaces ours. In
// lists of arguments for a component (those ending in -arg) that holds for each
// flag, so that one flag of theirs does not undo all of ours; a flag written
// with += or -= extends, as K3s has it.
func merge(ours, users map[string]any) map[string]any {
	out := maps.Clone(ours)
	for _, written := range slices.Sorted(maps.Keys(users)) {
		key := strings.TrimSuffix(written, "+")
		mine, isList := ours[key].([]string)
		if !isList || !strings.HasSuffix(key, "-arg") {
			out[written] = users[written]
			continue
		}
		theirs := arguments(users[written])
		out[key] = slices.Concat(slices.DeleteFunc(slices.Clone(mine), func(arg string) bool {
			return slices.ContainsFunc(theirs, func(t string) bool { return flagOf(t) == flagOf(arg) })
		}), theirs)
	}
	return out
}

// arguments are a value of K3s's settings as K3s reads it: a list, or one alone.
func arguments(value any) []string {
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	var out []string
	for _, v := range list {
		out = append(out, fmt.Sprint(v))
	}
	return out
}

// flagOf is the name of a component's flag, with the + or - of one that extends.
func flagOf(argument string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(argument, "--"), "=")
	return name
}
