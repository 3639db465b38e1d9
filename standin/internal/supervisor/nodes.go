package supervisor

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/k3lab/k3lab/standin/internal/pki"
	"github.com/k3lab/k3lab/standin/internal/protocol"
	"github.com/k3lab/k3lab/standin/internal/token"
)

// maxRequest is more than any certificate request needs.
const maxRequest = 64 << 10

var errPasswordMismatch = errors.New("hash does not match: the node's password is not the one it first joined with")

func (s *Supervisor) signKubeletClient(w http.ResponseWriter, r *http.Request) {
	s.sign(w, r, "client-ca", func(node, _ string) pki.Subject { return pki.NodeClient(node) })
}

func (s *Supervisor) signKubeletServing(w http.ResponseWriter, r *http.Request) {
	s.sign(w, r, "server-ca", func(node, ip string) pki.Subject { return pki.NodeServing(node, ip) })
}

// sign issues a certificate for the node that asks, once it has shown that it
// is the node that first used this name.
func (s *Supervisor) sign(w http.ResponseWriter, r *http.Request, ca string, subject func(node, ip string) pki.Subject) {
	node := r.Header.Get(protocol.HeaderNodeName)
	password := r.Header.Get(protocol.HeaderNodePassword)
	if node == "" || password == "" {
		writeStatus(w, http.StatusBadRequest, "node name or password not set")
		return
	}
	if err := s.checkNodePassword(r.Context(), node, password); err != nil {
		code := http.StatusInternalServerError
		if errors.Is(err, errPasswordMismatch) {
			code = http.StatusForbidden
		}
		writeStatus(w, code, fmt.Sprintf("unable to verify password for node %s: %v", node, err))
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil {
		writeStatus(w, http.StatusBadRequest, err.Error())
		return
	}
	public, err := pki.RequestKey(body)
	if err != nil {
		writeStatus(w, http.StatusBadRequest, err.Error())
		return
	}
	authority, err := pki.LoadAuthority(s.config.Dir.TLS(ca+".crt"), s.config.Dir.TLS(ca+".key"))
	if err != nil {
		writeStatus(w, http.StatusInternalServerError, err.Error())
		return
	}
	cert, err := authority.Sign(public, subject(node, r.Header.Get(protocol.HeaderNodeIP)))
	if err != nil {
		writeStatus(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write(cert)
}

// NodePasswordSecret is the name of the Secret that keeps a node's password.
func NodePasswordSecret(node string) string { return strings.ToLower(node) + ".node-password.k3s" }

func (s *Supervisor) checkNodePassword(ctx context.Context, node, password string) error {
	kube, err := s.deps.Kube()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, backendTimeout)
	defer cancel()
	return EnsureNodePassword(ctx, kube, node, password)
}

// EnsureNodePassword remembers a node's password the first time and compares
// it from then on, until somebody deletes the Secret.
func EnsureNodePassword(ctx context.Context, kube kubernetes.Interface, node, password string) error {
	secrets := kube.CoreV1().Secrets(metav1.NamespaceSystem)
	secret, err := secrets.Get(ctx, NodePasswordSecret(node), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		immutable := true
		_, err = secrets.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: NodePasswordSecret(node), Namespace: metav1.NamespaceSystem},
			Immutable:  &immutable,
			Data:       map[string][]byte{"hash": []byte(hashPassword(password, token.Random(8)))},
		}, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	stored := string(secret.Data["hash"])
	_, salt, _ := strings.Cut(stored, "$1:")
	salt, _, _ = strings.Cut(salt, ":")
	if subtle.ConstantTimeCompare([]byte(stored), []byte(hashPassword(password, salt))) != 1 {
		return errPasswordMismatch
	}
	return nil
}

// hashPassword needs no slow hash: node passwords are 128 random bits.
func hashPassword(password, salt string) string {
	sum := sha256.Sum256([]byte(salt + ":" + password))
	return "$1:" + salt + ":" + hex.EncodeToString(sum[:])
}

// apiServers lists where the API can be reached, for agents' load balancers.
func (s *Supervisor) apiServers(w http.ResponseWriter, r *http.Request) {
	kube, err := s.deps.Kube()
	if err != nil {
		writeStatus(w, http.StatusInternalServerError, err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), backendTimeout)
	defer cancel()
	addresses, err := APIServers(ctx, kube)
	if err != nil {
		writeStatus(w, http.StatusInternalServerError, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, addresses)
}

// APIServers reads the addresses behind the `kubernetes` service.
func APIServers(ctx context.Context, kube kubernetes.Interface) ([]string, error) {
	slice, err := kube.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	addresses := []string{}
	for _, port := range slice.Ports {
		if port.Port == nil {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			for _, address := range endpoint.Addresses {
				addresses = append(addresses, net.JoinHostPort(address, fmt.Sprint(*port.Port)))
			}
		}
	}
	return addresses, nil
}
