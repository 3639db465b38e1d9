// Package pki makes the certificates of a cluster: authorities that last ten
// years and are the same on every server, and leaf certificates that last one
// year and are each server's own.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/k3lab/k3lab/standin/internal/datadir"
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 365 * 24 * time.Hour
	// renewBefore is how long before its end a certificate is made anew at
	// the next start, as K3s does.
	renewBefore = 120 * 24 * time.Hour
	// backdate covers clocks of joining machines that run behind.
	backdate = time.Hour
)

// Authority signs certificates.
type Authority struct {
	Cert *x509.Certificate
	// PEM is the whole bundle as stored.
	PEM []byte
	key crypto.Signer
}

// EnsureAuthority loads the authority stored in the two files, or makes one.
func EnsureAuthority(certFile, keyFile, name string) (*Authority, error) {
	authority, err := LoadAuthority(certFile, keyFile)
	if !errors.Is(err, os.ErrNotExist) {
		return authority, err
	}
	now := time.Now()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(0),
		Subject:               pkix.Name{CommonName: fmt.Sprintf("%s@%d", name, now.Unix())},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if err := writeKey(keyFile, key); err != nil {
		return nil, err
	}
	if err := datadir.WriteFile(certFile, encodeCert(der), 0o644); err != nil {
		return nil, err
	}
	return LoadAuthority(certFile, keyFile)
}

// LoadAuthority reads an authority. The first certificate of the file signs.
func LoadAuthority(certFile, keyFile string) (*Authority, error) {
	bundle, err := os.ReadFile(certFile)
	if err != nil {
		return nil, err
	}
	certs, err := ParseCerts(bundle)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certFile, err)
	}
	key, err := readKey(keyFile)
	if err != nil {
		return nil, err
	}
	return &Authority{Cert: certs[0], PEM: bundle, key: key}, nil
}

// Subject is what a leaf certificate says about its holder.
type Subject struct {
	CommonName    string
	Organizations []string
	// SANs are host names and addresses, mixed.
	SANs   []string
	Usages []x509.ExtKeyUsage
}

// The usages of the certificates K3s makes.
var (
	Client = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	Serve  = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	Peer   = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
)

// EnsureLeaf makes the certificate for subject unless the files hold a good
// one: signed by this authority, not near its end, valid for every SAN.
func (a *Authority) EnsureLeaf(certFile, keyFile string, subject Subject) error {
	if a.stillGood(certFile, keyFile, subject) {
		return nil
	}
	key, err := readKey(keyFile)
	if errors.Is(err, os.ErrNotExist) {
		key, err = newKey(keyFile)
	}
	if err != nil {
		return err
	}
	cert, err := a.Sign(key.Public(), subject)
	if err != nil {
		return err
	}
	return datadir.WriteFile(certFile, cert, 0o644)
}

func (a *Authority) stillGood(certFile, keyFile string, subject Subject) bool {
	data, err := os.ReadFile(certFile)
	if err != nil {
		return false
	}
	if _, err := os.Stat(keyFile); err != nil {
		return false
	}
	certs, err := ParseCerts(data)
	if err != nil || certs[0].CheckSignatureFrom(a.Cert) != nil {
		return false
	}
	cert := certs[0]
	dns, ips := splitSANs(subject.SANs)
	for _, name := range dns {
		if !slices.Contains(cert.DNSNames, name) {
			return false
		}
	}
	for _, ip := range ips {
		if !slices.ContainsFunc(cert.IPAddresses, ip.Equal) {
			return false
		}
	}
	return cert.Subject.CommonName == subject.CommonName && time.Until(cert.NotAfter) > renewBefore
}

// Sign issues a certificate for a public key and returns it in PEM, followed
// by the authority's own.
func (a *Authority) Sign(public crypto.PublicKey, subject Subject) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 63))
	if err != nil {
		return nil, err
	}
	dns, ips := splitSANs(subject.SANs)
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: subject.CommonName, Organization: subject.Organizations},
		DNSNames:     dns,
		IPAddresses:  ips,
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(leafLife),
		KeyUsage:     x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  subject.Usages,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, public, a.key)
	if err != nil {
		return nil, err
	}
	return append(encodeCert(der), a.PEM...), nil
}

// NewRequest makes a key (kept in keyFile) and returns a signing request for
// it. What the certificate says is the signer's business.
func NewRequest(keyFile string) ([]byte, error) {
	key, err := readKey(keyFile)
	if errors.Is(err, os.ErrNotExist) {
		key, err = newKey(keyFile)
	}
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// RequestKey returns the public key of a signing request.
func RequestKey(data []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("no certificate request in the body")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := request.CheckSignature(); err != nil {
		return nil, err
	}
	return request.PublicKey, nil
}

// ParseCerts reads every certificate of a PEM bundle, at least one.
func ParseCerts(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(bytes.TrimSpace(data)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate found")
	}
	return certs, nil
}

// EnsureKey makes a signing key without a certificate, for service accounts.
func EnsureKey(file string) error {
	_, err := readKey(file)
	if errors.Is(err, os.ErrNotExist) {
		_, err = newKey(file)
	}
	return err
}

func newKey(file string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return key, writeKey(file, key)
}

func writeKey(file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return datadir.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// readKey takes any private key a user may bring for a CA of their own.
func readKey(file string) (crypto.Signer, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s: no private key found", file)
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: key cannot sign", file)
	}
	return signer, nil
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func splitSANs(sans []string) (dns []string, ips []net.IP) {
	for _, san := range sans {
		if ip := net.ParseIP(san); ip != nil {
			ips = append(ips, ip)
		} else if san != "" && !slices.Contains(dns, san) {
			dns = append(dns, san)
		}
	}
	return dns, ips
}

// UsageNames lists what a certificate may be used for, as K3s writes it.
func UsageNames(cert *x509.Certificate) string {
	var names []string
	for _, usage := range cert.ExtKeyUsage {
		switch usage {
		case x509.ExtKeyUsageClientAuth:
			names = append(names, "ClientAuth")
		case x509.ExtKeyUsageServerAuth:
			names = append(names, "ServerAuth")
		}
	}
	if cert.IsCA {
		names = append(names, "CertSign")
	}
	return strings.Join(names, ",")
}
