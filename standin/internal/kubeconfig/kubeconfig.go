// Package kubeconfig writes the two kinds of kubeconfig K3s writes: one that
// refers to certificate files, for its components, and one with everything
// inside, for people.
package kubeconfig

import (
	"os"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/k3lab/k3lab/standin/internal/datadir"
)

// Files names what a kubeconfig refers to.
type Files struct {
	Server, CA, Cert, Key string
}

// WriteFiles writes a kubeconfig that refers to files, readable by root only.
func WriteFiles(path string, f Files) error {
	return write(path, 0o600, "local", "user", "Default",
		&api.Cluster{Server: f.Server, CertificateAuthority: f.CA},
		&api.AuthInfo{ClientCertificate: f.Cert, ClientKey: f.Key})
}

// WriteAdmin writes the administrator's kubeconfig with the certificates
// themselves in it.
func WriteAdmin(path string, mode os.FileMode, f Files) error {
	var contents [3][]byte
	for i, file := range []string{f.CA, f.Cert, f.Key} {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		contents[i] = data
	}
	return write(path, mode, "default", "default", "default",
		&api.Cluster{Server: f.Server, CertificateAuthorityData: contents[0]},
		&api.AuthInfo{ClientCertificateData: contents[1], ClientKeyData: contents[2]})
}

func write(path string, mode os.FileMode, cluster, user, name string, c *api.Cluster, u *api.AuthInfo) error {
	config := api.NewConfig()
	config.Clusters[cluster] = c
	config.AuthInfos[user] = u
	config.Contexts[name] = &api.Context{Cluster: cluster, AuthInfo: user}
	config.CurrentContext = name
	data, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return datadir.WriteFile(path, data, mode)
}
