package pveapi

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/k3lab/k3lab/internal/fault"
)

// certificates are the server's own authority's work. Only the leaf's key is
// kept; the authority signs once and its key is forgotten.
type certificates struct {
	leaf tls.Certificate
}

const (
	certValidity = 2 * 365 * 24 * time.Hour
	certRenewal  = 30 * 24 * time.Hour // renewed when less is left
)

// loadCertificates reads the certificates under dir, or makes new ones when
// there are none or they are about to end.
func loadCertificates(dir string, now time.Time) (*certificates, error) {
	certFile, keyFile := filepath.Join(dir, "api.pem"), filepath.Join(dir, "api-key.pem")
	leaf, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err == nil && leaf.Leaf != nil && now.Add(certRenewal).Before(leaf.Leaf.NotAfter) {
		if _, err := os.Stat(CAFile(dir)); err == nil {
			return &certificates{leaf: leaf}, nil
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.Failed, certFile, "remove the file", "sandbox certificate: %w", err)
	}
	ca, cert, key, err := makeCertificates(now)
	if err != nil {
		return nil, fault.New(fault.Failed, dir, "", "sandbox certificate: %w", err)
	}
	for _, f := range []struct {
		path string
		data []byte
		mode os.FileMode
	}{{keyFile, key, 0o600}, {certFile, cert, 0o644}, {CAFile(dir), ca, 0o644}} {
		if err := renameio.WriteFile(f.path, f.data, f.mode); err != nil {
			return nil, fault.New(fault.Failed, f.path, "", "sandbox certificate: %w", err)
		}
	}
	leaf, err = tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fault.New(fault.Failed, certFile, "", "sandbox certificate: %w", err)
	}
	return &certificates{leaf: leaf}, nil
}

// makeCertificates returns PEM: an authority, a leaf for loopback, its key.
func makeCertificates(now time.Time) (ca, cert, key []byte, err error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	caTmpl, err := certTemplate(now, "k3lab sandbox Proxmox authority")
	if err != nil {
		return nil, nil, nil, err
	}
	caTmpl.IsCA, caTmpl.BasicConstraintsValid = true, true
	caTmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	caDER, err := x509.CreateCertificate(rand.Reader, caTmpl, caTmpl, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, nil, nil, err
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	tmpl, err := certTemplate(now, "localhost")
	if err != nil {
		return nil, nil, nil, err
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	tmpl.DNSNames = []string{"localhost"}
	tmpl.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, caTmpl, &leafKey.PublicKey, caKey)
	if err != nil {
		return nil, nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		return nil, nil, nil, err
	}
	return pemBlock("CERTIFICATE", caDER), pemBlock("CERTIFICATE", der), pemBlock("PRIVATE KEY", keyDER), nil
}

func certTemplate(now time.Time, name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: []string{"k3lab sandbox"}},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(certValidity),
	}, nil
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// fingerprint is the leaf's SHA-256, as Proxmox shows it.
func (c *certificates) fingerprint() string {
	sum := sha256.Sum256(c.leaf.Certificate[0])
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(parts, ":")
}
