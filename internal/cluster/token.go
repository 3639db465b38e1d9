package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// localAPI is the API and supervisor of a server, from the server itself.
const localAPI = "127.0.0.1:6443"

// Supervisor speaks to what K3s adds to a server's API, with the cluster's
// token. Connections are made from the machine itself, and its certificate is
// verified against the cluster's authority.
type Supervisor struct {
	Machines Machines
	// CA is the cluster's authority, in PEM.
	CA []byte
}

// AuthorityOf is the certificate authority that a kubeconfig trusts, in PEM.
func AuthorityOf(kubeconfig []byte) ([]byte, error) {
	c, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return c.CAData, nil
}

// Accepts reports whether the server takes this token from a node that joins.
func (s *Supervisor) Accepts(ctx context.Context, server, token string) (bool, error) {
	status, err := s.call(ctx, server, http.MethodGet, "/v1-k3s/readyz", "node", token, nil)
	switch {
	case err != nil:
		return false, err
	case status == http.StatusUnauthorized:
		return false, nil
	case status != http.StatusOK:
		return false, fmt.Errorf("supervisor: %s", http.StatusText(status))
	}
	return true, nil
}

// RotateToken has the server take a new token in the place of the old one, and
// encrypt with it what the datastore keeps for servers that join. Every K3s
// then has to be started again with the new one.
func (s *Supervisor) RotateToken(ctx context.Context, server, old, fresh string) error {
	body, err := json.Marshal(map[string]string{"newToken": fresh})
	if err != nil {
		return errors.New("token: it cannot be sent")
	}
	status, err := s.call(ctx, server, http.MethodPut, "/v1-k3s/token", "server", old, body)
	switch {
	case err != nil:
		return err
	case status == http.StatusUnauthorized:
		return errors.New("the server does not know the token in secrets.sops.yaml")
	case status != http.StatusOK:
		return fmt.Errorf("the token was not rotated: %s", http.StatusText(status))
	}
	return nil
}

func (s *Supervisor) call(ctx context.Context, server, method, path, user, password string, body []byte) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(s.CA) {
		return 0, errors.New("kubeconfig: it has no certificate authority")
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return s.Machines.Dial(ctx, server, network, localAPI)
		},
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+localAPI+path, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("supervisor: %w", err)
	}
	req.SetBasicAuth(user, password)
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, fmt.Errorf("supervisor: %w", err)
	}
	return resp.StatusCode, resp.Body.Close()
}
