package cluster

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Kubeconfig turns the kubeconfig of a server into one for use from elsewhere:
// it speaks to url, and its cluster, user and context are called name.
func Kubeconfig(onServer []byte, url, name string) ([]byte, error) {
	in, err := clientcmd.Load(onServer)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig of the server: %w", err)
	}
	context := in.Contexts[in.CurrentContext]
	if context == nil || in.Clusters[context.Cluster] == nil || in.AuthInfos[context.AuthInfo] == nil {
		return nil, fmt.Errorf("kubeconfig of the server: context %q is not whole", in.CurrentContext)
	}
	out := clientcmdapi.NewConfig()
	out.Clusters[name] = in.Clusters[context.Cluster]
	out.Clusters[name].Server = url
	out.AuthInfos[name] = in.AuthInfos[context.AuthInfo]
	out.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	out.CurrentContext = name
	text, err := clientcmd.Write(*out)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return text, nil
}

// WriteKubeconfig writes the file whole or not at all, readable by its owner only.
func WriteKubeconfig(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	if err := renameio.WriteFile(path, content, 0o600); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	return nil
}

// MergeKubeconfig adds the context of one kubeconfig to the file at path, where
// it replaces what has the same name and leaves everything else, the current
// context included unless there is none or use is set.
func MergeKubeconfig(path string, content []byte, use bool) error {
	add, err := clientcmd.Load(content)
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	into, err := clientcmd.LoadFromFile(path)
	if os.IsNotExist(err) {
		into, err = clientcmdapi.NewConfig(), nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for name, c := range add.Clusters {
		into.Clusters[name] = c
	}
	for name, u := range add.AuthInfos {
		into.AuthInfos[name] = u
	}
	for name, c := range add.Contexts {
		into.Contexts[name] = c
	}
	if use || into.CurrentContext == "" {
		into.CurrentContext = add.CurrentContext
	}
	text, err := clientcmd.Write(*into)
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	return WriteKubeconfig(path, text)
}

// StillGood reports whether a kept kubeconfig leads to the same cluster as a
// fresh one and its client certificate is good for another month. The
// certificates themselves differ: each server issues its own.
func StillGood(kept, fresh []byte, now time.Time) bool {
	a, err := clientcmd.Load(kept)
	if err != nil {
		return false
	}
	b, err := clientcmd.Load(fresh)
	if err != nil {
		return false
	}
	name := b.CurrentContext
	ca, cb, user := a.Clusters[name], b.Clusters[name], a.AuthInfos[name]
	if a.CurrentContext != name || ca == nil || cb == nil || user == nil || a.Contexts[name] == nil {
		return false
	}
	if ca.Server != cb.Server || !bytes.Equal(ca.CertificateAuthorityData, cb.CertificateAuthorityData) {
		return false
	}
	block, _ := pem.Decode(user.ClientCertificateData)
	if block == nil {
		return false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	return err == nil && cert.NotAfter.After(now.AddDate(0, 1, 0))
}
