package infra_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"time"
)

// trusting returns a client that trusts this authority alone.
func trusting(ca []byte) *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, DisableKeepAlives: true},
	}
}
