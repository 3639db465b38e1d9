package infra

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/fault"
)

// checkEndpoints asks every endpoint for its version, all at once, because the
// provider waits minutes for an address nobody answers at and does not say
// which token is wrong.
func (t *Terraform) checkEndpoints(ctx context.Context) error {
	pool := x509.NewCertPool()
	bundle, err := os.ReadFile(t.paths.bundle)
	if err != nil {
		return err
	}
	pool.AppendCertsFromPEM(bundle)
	client := &http.Client{
		Timeout: 15 * time.Second,
		Transport: &http.Transport{
			Proxy:             http.ProxyFromEnvironment,
			TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13},
			DisableKeepAlives: true,
		},
	}
	errs := make([]error, len(t.opts.Lab.Proxmox.Endpoints))
	var wait sync.WaitGroup
	for i, e := range t.opts.Lab.Proxmox.Endpoints {
		wait.Go(func() { errs[i] = checkEndpoint(ctx, client, e, t.opts.Tokens[e.Name]) })
	}
	wait.Wait()
	if stop := interrupted(ctx, "the check of the endpoints"); stop != nil {
		return stop
	}
	return errors.Join(errs...)
}

func checkEndpoint(ctx context.Context, client *http.Client, e config.Endpoint, token string) error {
	if token == "" {
		return noToken(e.Name)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(e.URL, "/")+"/api2/json/version", nil)
	if err != nil {
		return fault.New(fault.Invalid, "endpoints."+e.Name+".url", "", "%w", err)
	}
	request.Header.Set("Authorization", "PVEAPIToken="+token)
	response, err := client.Do(request)
	if err != nil {
		return unanswered(e, err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<16))
	switch {
	case response.StatusCode == http.StatusUnauthorized:
		return wrongToken(e.Name)
	case response.StatusCode >= 500:
		return fault.New(fault.Unreachable, "endpoint "+e.Name, "systemctl status pveproxy pvedaemon on that hypervisor",
			"%s answers %s", e.URL, response.Status)
	}
	return nil
}

// unanswered explains why a connection to an endpoint failed.
func unanswered(e config.Endpoint, err error) error {
	object := "endpoint " + e.Name
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		dns       *net.DNSError
	)
	switch {
	case errors.As(err, &authority):
		return unknownAuthority(e.Name)
	case errors.As(err, &name):
		return fault.New(fault.Invalid, object, "use a name or address of the certificate in endpoints."+e.Name+".url", "%w", name)
	case errors.As(err, &invalid):
		return fault.New(fault.Invalid, object, "pvenode cert info on that hypervisor", "%w", invalid)
	case errors.As(err, &dns):
		return fault.New(fault.Unreachable, object, "check endpoints."+e.Name+".url in terraform/vars/proxmox.yaml", "%w", dns)
	}
	return fault.New(fault.Unreachable, object, fmt.Sprintf("check that %s is on, and endpoints.%s.url in terraform/vars/proxmox.yaml", e.URL, e.Name),
		"the Proxmox API does not answer: %w", err)
}

func noToken(endpoint string) error {
	return fault.New(fault.Invalid, "endpoint "+endpoint, tokenHint(endpoint), "no API token is set")
}

func wrongToken(endpoint string) error {
	return fault.New(fault.Invalid, "endpoint "+endpoint, tokenHint(endpoint), "the API token is refused")
}

func tokenHint(endpoint string) string {
	return "sops secrets.sops.yaml, and set proxmox_api_tokens." + endpoint + ": user@realm!id=uuid"
}

func unknownAuthority(endpoint string) error {
	return fault.New(fault.Invalid, "endpoint "+endpoint,
		"copy /etc/pve/pve-root-ca.pem of a hypervisor into the workspace and name it in endpoints."+endpoint+".ca_file",
		"its certificate is signed by an unknown authority")
}
