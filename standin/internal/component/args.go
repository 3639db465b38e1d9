package component

import (
	"sort"
	"strings"

	"github.com/k3lab/k3lab/standin/internal/options"
)

// The names of the components, which are also hidden commands of the binary.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
)

// cipherSuites are those K3s serves the API with unless it is given others.
const cipherSuites = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384," +
	"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256," +
	"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"

// APIServerArgs are kube-apiserver's arguments, K3s's where they can be seen
// from outside.
func APIServerArgs(s *options.Server, port, etcd string) []string {
	issuer := "https://kubernetes.default.svc." + s.ClusterDomain
	args := map[string]string{
		"advertise-address":                  s.AdvertiseAddress,
		"bind-address":                       bindAddress(s),
		"secure-port":                        port,
		"allow-privileged":                   "true",
		"anonymous-auth":                     "false",
		"api-audiences":                      issuer + ",k3s",
		"authorization-mode":                 "Node,RBAC",
		"cert-dir":                           s.Dir.TLS("temporary-certs"),
		"client-ca-file":                     s.Dir.TLS("client-ca.crt"),
		"enable-admission-plugins":           "NodeRestriction",
		"enable-bootstrap-token-auth":        "true",
		"etcd-cafile":                        s.Dir.TLS("etcd", "server-ca.crt"),
		"etcd-certfile":                      s.Dir.TLS("etcd", "client.crt"),
		"etcd-keyfile":                       s.Dir.TLS("etcd", "client.key"),
		"etcd-servers":                       etcd,
		"kubelet-certificate-authority":      s.Dir.TLS("server-ca.crt"),
		"kubelet-client-certificate":         s.Dir.TLS("client-kube-apiserver.crt"),
		"kubelet-client-key":                 s.Dir.TLS("client-kube-apiserver.key"),
		"kubelet-preferred-address-types":    "InternalIP,ExternalIP,Hostname",
		"profiling":                          "false",
		"proxy-client-cert-file":             s.Dir.TLS("client-auth-proxy.crt"),
		"proxy-client-key-file":              s.Dir.TLS("client-auth-proxy.key"),
		"requestheader-allowed-names":        "system:auth-proxy",
		"requestheader-client-ca-file":       s.Dir.TLS("request-header-ca.crt"),
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-username-headers":     "X-Remote-User",
		"service-account-issuer":             issuer,
		"service-account-key-file":           s.Dir.TLS("service.key"),
		"service-account-signing-key-file":   s.Dir.TLS("service.current.key"),
		"service-cluster-ip-range":           s.ServiceCIDR,
		"service-node-port-range":            s.NodePorts,
		"storage-backend":                    "etcd3",
		"tls-cipher-suites":                  cipherSuites,
		"tls-cert-file":                      s.Dir.TLS("serving-kube-apiserver.crt"),
		"tls-private-key-file":               s.Dir.TLS("serving-kube-apiserver.key"),
		// Five API servers share two cores with everything else: flow control
		// costs more there than it saves.
		"enable-priority-and-fairness": "false",
	}
	if s.SecretsEncryption {
		args["encryption-provider-config"] = s.Dir.Cred("encryption-config.json")
		args["encryption-provider-config-automatic-reload"] = "true"
	}
	return arguments(args, s.APIServerArgs)
}

func bindAddress(s *options.Server) string {
	if s.BindAddress != "" {
		return s.BindAddress
	}
	return "0.0.0.0"
}

// ControllerManagerArgs are kube-controller-manager's arguments.
func ControllerManagerArgs(s *options.Server) []string {
	conf := s.Dir.Cred("controller.kubeconfig")
	args := map[string]string{
		"allocate-node-cidrs":             "true",
		"authentication-kubeconfig":       conf,
		"authorization-kubeconfig":        conf,
		"bind-address":                    "127.0.0.1",
		"cluster-cidr":                    s.ClusterCIDR,
		"configure-cloud-routes":          "false",
		"controllers":                     "*,tokencleaner,-service,-route,-cloud-node-lifecycle",
		"kubeconfig":                      conf,
		"profiling":                       "false",
		"root-ca-file":                    s.Dir.TLS("server-ca.crt"),
		"secure-port":                     "10257",
		"service-cluster-ip-range":        s.ServiceCIDR,
		"use-service-account-credentials": "true",

		"service-account-private-key-file":                s.Dir.TLS("service.current.key"),
		"cluster-signing-kube-apiserver-client-cert-file": s.Dir.TLS("client-ca.nochain.crt"),
		"cluster-signing-kube-apiserver-client-key-file":  s.Dir.TLS("client-ca.key"),
		"cluster-signing-kubelet-client-cert-file":        s.Dir.TLS("client-ca.nochain.crt"),
		"cluster-signing-kubelet-client-key-file":         s.Dir.TLS("client-ca.key"),
		"cluster-signing-kubelet-serving-cert-file":       s.Dir.TLS("server-ca.nochain.crt"),
		"cluster-signing-kubelet-serving-key-file":        s.Dir.TLS("server-ca.key"),
		"cluster-signing-legacy-unknown-cert-file":        s.Dir.TLS("server-ca.nochain.crt"),
		"cluster-signing-legacy-unknown-key-file":         s.Dir.TLS("server-ca.key"),
	}
	return arguments(args, s.ControllerArgs)
}

// SchedulerArgs are kube-scheduler's arguments.
func SchedulerArgs(s *options.Server) []string {
	conf := s.Dir.Cred("scheduler.kubeconfig")
	return arguments(map[string]string{
		"authentication-kubeconfig": conf,
		"authorization-kubeconfig":  conf,
		"bind-address":              "127.0.0.1",
		"kubeconfig":                conf,
		"profiling":                 "false",
		"secure-port":               "10259",
	}, s.SchedulerArgs)
}

// arguments lays the user's own arguments over ours. One that the user gives
// replaces ours, except that `+=` extends a comma-separated value, as in K3s.
func arguments(ours map[string]string, users []string) []string {
	repeated := map[string][]string{}
	for _, user := range users {
		name, value, given := strings.Cut(strings.TrimLeft(user, "-"), "=")
		if !given {
			value = "true"
		}
		if base, extends := strings.CutSuffix(name, "+"); extends {
			if old := ours[base]; old != "" {
				value = old + "," + value
			}
			ours[base] = value
			continue
		}
		delete(ours, name)
		repeated[name] = append(repeated[name], value)
	}
	var args []string
	for name, value := range ours {
		args = append(args, "--"+name+"="+value)
	}
	for name, values := range repeated {
		for _, value := range values {
			args = append(args, "--"+name+"="+value)
		}
	}
	sort.SliceStable(args, func(i, j int) bool {
		a, _, _ := strings.Cut(args[i], "=")
		b, _, _ := strings.Cut(args[j], "=")
		return a < b
	})
	return args
}
