package pki

import (
	"errors"
	"os"
	"slices"

	"github.com/k3lab/k3lab/standin/internal/datadir"
	"github.com/k3lab/k3lab/standin/internal/kubeconfig"
)

// Groups with a meaning to Kubernetes.
const (
	groupMasters = "system:masters"
	groupNodes   = "system:nodes"
)

// ServerNames is what one server's certificates must be valid for.
type ServerNames struct {
	// API are the names and addresses of the API, service and VIP included.
	API []string
	// Etcd are those of the datastore member.
	Etcd []string
	// APIURL is where this server's own components find the API.
	APIURL string
}

// EnsureServer makes whatever is missing of a server's certificate tree and of
// the kubeconfigs that use it. Authorities already there (fetched from the
// cluster, or brought by the user) are kept.
func EnsureServer(dir datadir.Dir, names ServerNames) error {
	authorities, err := ensureAuthorities(dir)
	if err != nil {
		return err
	}
	for _, leaf := range serverLeaves(names) {
		ca := authorities[leaf.ca]
		if err := ca.EnsureLeaf(dir.TLS(leaf.file+".crt"), dir.TLS(leaf.file+".key"), leaf.subject); err != nil {
			return err
		}
		if leaf.kubeconfig == "" {
			continue
		}
		conf := kubeconfig.Files{
			Server: names.APIURL, CA: dir.TLS("server-ca.crt"),
			Cert: dir.TLS(leaf.file + ".crt"), Key: dir.TLS(leaf.file + ".key"),
		}
		if err := kubeconfig.WriteFiles(dir.Cred(leaf.kubeconfig), conf); err != nil {
			return err
		}
	}
	if err := EnsureKey(dir.TLS("service.key")); err != nil {
		return err
	}
	return ensureCurrentKey(dir)
}

// ensureCurrentKey keeps the key that signs apart from those that verify, as
// K3s does so that service account keys can be rotated.
func ensureCurrentKey(dir datadir.Dir) error {
	key, err := os.ReadFile(dir.TLS("service.key"))
	if err != nil {
		return err
	}
	return datadir.WriteFile(dir.TLS("service.current.key"), key, 0o600)
}

func ensureAuthorities(dir datadir.Dir) (map[string]*Authority, error) {
	authorities := map[string]*Authority{}
	for file, name := range map[string]string{
		"client-ca":         "k3s-client-ca",
		"server-ca":         "k3s-server-ca",
		"request-header-ca": "k3s-request-header-ca",
		"etcd/server-ca":    "etcd-server-ca",
		"etcd/peer-ca":      "etcd-peer-ca",
	} {
		ca, err := EnsureAuthority(dir.TLS(file+".crt"), dir.TLS(file+".key"), name)
		if err != nil {
			return nil, err
		}
		authorities[file] = ca
	}
	for _, file := range []string{"client-ca", "server-ca"} {
		// kube-controller-manager signs with exactly one certificate.
		one := encodeCert(authorities[file].Cert.Raw)
		if err := datadir.WriteFile(dir.TLS(file+".nochain.crt"), one, 0o644); err != nil {
			return nil, err
		}
	}
	return authorities, nil
}

type serverLeaf struct {
	ca, file   string
	kubeconfig string
	subject    Subject
}

func serverLeaves(names ServerNames) []serverLeaf {
	client := func(file, kubeconfig, user string, groups ...string) serverLeaf {
		return serverLeaf{
			ca: "client-ca", file: file, kubeconfig: kubeconfig,
			subject: Subject{CommonName: user, Organizations: groups, Usages: Client},
		}
	}
	return []serverLeaf{
		client("client-admin", "admin.kubeconfig", "system:admin", groupMasters),
		client("client-supervisor", "supervisor.kubeconfig", "system:k3s-supervisor", groupMasters),
		client("client-controller", "controller.kubeconfig", "system:kube-controller-manager"),
		client("client-scheduler", "scheduler.kubeconfig", "system:kube-scheduler"),
		client("client-kube-apiserver", "api-server.kubeconfig", "system:apiserver", groupMasters),
		client("client-kube-proxy", "", "system:kube-proxy"),
		client("client-k3s-controller", "", "system:k3s-controller"),
		client("client-k3s-cloud-controller", "cloud-controller.kubeconfig", "k3s-cloud-controller-manager"),
		{
			ca: "request-header-ca", file: "client-auth-proxy",
			subject: Subject{CommonName: "system:auth-proxy", Usages: Client},
		},
		{
			ca: "server-ca", file: "serving-kube-apiserver",
			subject: Subject{CommonName: "kube-apiserver", SANs: names.API, Usages: Serve},
		},
		{
			ca: "etcd/server-ca", file: "etcd/client",
			subject: Subject{CommonName: "etcd-client", Usages: Client},
		},
		{
			ca: "etcd/server-ca", file: "etcd/server-client",
			subject: Subject{CommonName: "etcd-server", SANs: names.Etcd, Usages: Peer},
		},
		{
			ca: "etcd/peer-ca", file: "etcd/peer-server-client",
			subject: Subject{CommonName: "etcd-peer", SANs: names.Etcd, Usages: Peer},
		},
	}
}

// NodeClient is the identity of a node's kubelet towards the API.
func NodeClient(node string) Subject {
	return Subject{CommonName: "system:node:" + node, Organizations: []string{groupNodes}, Usages: Client}
}

// NodeServing is the identity under which a node's kubelet serves.
func NodeServing(node string, addresses ...string) Subject {
	return Subject{CommonName: node, SANs: append([]string{node, "127.0.0.1"}, addresses...), Usages: Serve}
}

// LeafFiles are the certificates `k3s certificate` checks and rotates, by the
// service that uses them, relative to the server's tls directory, or the
// agent's where they are the node's.
func LeafFiles() map[string][]string {
	return map[string][]string{
		"admin":              {"client-admin"},
		"api-server":         {"client-kube-apiserver", "serving-kube-apiserver"},
		"auth-proxy":         {"client-auth-proxy"},
		"cloud-controller":   {"client-k3s-cloud-controller"},
		"controller-manager": {"client-controller"},
		"etcd":               {"etcd/client", "etcd/server-client", "etcd/peer-server-client"},
		"k3s-controller":     {"client-k3s-controller"},
		"kube-proxy":         {"client-kube-proxy"},
		"kubelet":            {"client-kubelet", "serving-kubelet"},
		"scheduler":          {"client-scheduler"},
		"supervisor":         {"client-supervisor"},
	}
}

// Leaf returns where a leaf's file may be: with the server, or with the agent
// where it is the node's.
func Leaf(dir datadir.Dir, file string) []string {
	return []string{dir.TLS(file), dir.Agent(file)}
}

// Remove deletes a leaf certificate and its key, so that the next start makes
// them anew.
func Remove(dir datadir.Dir, leaf string) error {
	for _, file := range slices.Concat(Leaf(dir, leaf+".crt"), Leaf(dir, leaf+".key")) {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
