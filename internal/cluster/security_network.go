package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/kube"
)

const (
	apiPort     = 6443
	kubeletPort = 10250
	// connectPatience is how long a connection that should not come about is tried.
	connectPatience = 1500 * time.Millisecond
	// soonOver is how long a certificate must still be good.
	soonOver = 30 * 24 * time.Hour
)

// onlyServers are the ports of the control plane that no agent has to reach.
var onlyServers = map[int]string{2379: "etcd", 2380: "etcd peers"}

func address(m *config.Machine, port int) string {
	return net.JoinHostPort(m.IP.String(), strconv.Itoa(port))
}

// handshake makes a TLS connection on the machine itself to one of its ports.
// Whose the certificate is does not matter here.
func (s *Security) handshake(ctx context.Context, m *config.Machine, port int, change func(*tls.Config)) (tls.ConnectionState, *tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, kube.AnswerPatience)
	defer cancel()
	raw, err := s.Machines.Dial(ctx, m.Name, "tcp", address(m, port))
	if err != nil {
		return tls.ConnectionState{}, nil, err
	}
	settings := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // what is offered is looked at, nothing is said
	change(settings)
	conn := tls.Client(raw, settings)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return tls.ConnectionState{}, nil, err
	}
	return conn.ConnectionState(), conn, nil
}

// oldTLS is good where TLS 1.1 is refused and what is agreed on otherwise is not.
func oldTLS(port int) func(context.Context, *Security, *config.Machine) (Verdict, string) {
	return func(ctx context.Context, s *Security, m *config.Machine) (Verdict, string) {
		state, conn, err := s.handshake(ctx, m, port, func(*tls.Config) {})
		if err != nil {
			return Unknown, firstLine(err.Error())
		}
		conn.Close()
		_, conn, err = s.handshake(ctx, m, port, func(c *tls.Config) {
			c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		})
		if err == nil {
			conn.Close()
			return Bad, fmt.Sprintf("port %d speaks TLS 1.1", port)
		}
		var refused tls.AlertError
		var remote *net.OpError
		if !errors.As(err, &refused) && !errors.As(err, &remote) {
			return Unknown, firstLine(err.Error())
		}
		return OK, fmt.Sprintf("port %d: %s agreed on, TLS 1.1 refused", port, tls.VersionName(state.Version))
	}
}

// expiry is good where the certificates shown on these ports last.
func expiry(ports ...int) func(context.Context, *Security, *config.Machine) (Verdict, string) {
	return func(ctx context.Context, s *Security, m *config.Machine) (Verdict, string) {
		var first *x509.Certificate
		port := 0
		for _, p := range ports {
			state, conn, err := s.handshake(ctx, m, p, func(*tls.Config) {})
			if err != nil {
				return Unknown, fmt.Sprintf("port %d: %s", p, firstLine(err.Error()))
			}
			conn.Close()
			if cert := state.PeerCertificates[0]; first == nil || cert.NotAfter.Before(first.NotAfter) {
				first, port = cert, p
			}
		}
		verdict := OK
		if first.NotAfter.Before(s.Now().Add(soonOver)) {
			verdict = Bad
		}
		return verdict, fmt.Sprintf("the first to end is that of port %d, %s", port, first.NotAfter.UTC().Format(time.DateOnly))
	}
}

// anonymous is good where a request without credentials is answered 401.
func anonymous(port int, path string) func(context.Context, *Security, *config.Machine) (Verdict, string) {
	return func(ctx context.Context, s *Security, m *config.Machine) (Verdict, string) {
		ctx, cancel := context.WithTimeout(ctx, kube.AnswerPatience)
		defer cancel()
		client := http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // nothing secret is said or believed
			DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
				return s.Machines.Dial(ctx, m.Name, network, to)
			},
		}}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address(m, port)+path, nil)
		if err != nil {
			return Unknown, err.Error()
		}
		resp, err := client.Do(req)
		if err != nil {
			return Unknown, firstLine(err.Error())
		}
		defer resp.Body.Close()
		evidence := fmt.Sprintf("GET :%d%s without credentials: %s", port, path, resp.Status)
		if resp.StatusCode != http.StatusUnauthorized {
			return Bad, evidence
		}
		return OK, evidence
	}
}

// datastoreAsks is good where etcd wants a client certificate.
func datastoreAsks(ctx context.Context, s *Security, m *config.Machine) (Verdict, string) {
	_, conn, err := s.handshake(ctx, m, 2379, func(*tls.Config) {})
	if err == nil {
		defer conn.Close()
		// With TLS 1.3 the refusal comes with the first byte.
		_ = conn.SetDeadline(time.Now().Add(connectPatience))
		if _, err = io.WriteString(conn, "GET /version HTTP/1.0\r\n\r\n"); err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
	}
	switch {
	case err == nil:
		return Bad, "etcd answers without a client certificate"
	case strings.Contains(err.Error(), "certificate required") || strings.Contains(err.Error(), "bad certificate"):
		return OK, "etcd without a client certificate: " + err.Error()
	default:
		return Unknown, firstLine(err.Error())
	}
}

// readOnlyKubelet is good where the port without authentication is closed.
func readOnlyKubelet(ctx context.Context, s *Security, m *config.Machine) (Verdict, string) {
	return s.closed(ctx, m, map[string]string{"127.0.0.1:10255": "kubelet's read-only port"})
}

// closedToAgents is good where the machine reaches none of the servers' own ports.
func closedToAgents(ctx context.Context, s *Security, m *config.Machine) (Verdict, string) {
	targets := map[string]string{}
	for _, server := range s.Lab.Servers() {
		for port, what := range onlyServers {
			targets[address(server, port)] = what
		}
	}
	return s.closed(ctx, m, targets)
}

// closed tries real connections from the machine, all at once.
func (s *Security) closed(ctx context.Context, m *config.Machine, targets map[string]string) (Verdict, string) {
	if _, known := s.facts[m.Name]; !known {
		return Unknown, "no answer"
	}
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	tries := sorted(targets)
	said := make([]error, len(tries))
	var work []func() error
	for i, to := range tries {
		work = append(work, func() error {
			conn, err := s.Machines.Dial(ctx, m.Name, "tcp", to)
			if err == nil {
				conn.Close()
			}
			said[i] = err
			return nil
		})
	}
	_ = kube.All(work...) // none of them returns one
	var open []string
	for i, to := range tries {
		switch {
		case said[i] == nil:
			open = append(open, targets[to]+" at "+to)
		case strings.Contains(said[i].Error(), "administratively prohibited"):
			return Unknown, "the machine's sshd makes no connection for us: nothing was tried"
		}
	}
	return none(open, "reached ", "tried from the machine, not reached: "+strings.Join(tries, ", "))
}

// virtualAddress is good where the VIP shows a certificate of the lab's CA.
func virtualAddress(ctx context.Context, s *Security, _ *config.Machine) (Verdict, string) {
	if !s.Lab.Network.VIP.IsValid() {
		return OK, "the lab has none"
	}
	admin, err := clientcmd.RESTConfigFromKubeConfig(s.Kubeconfig)
	if err != nil {
		return Unknown, "no kubeconfig to know the CA by"
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(admin.CAData)
	ctx, cancel := context.WithTimeout(ctx, kube.AnswerPatience)
	defer cancel()
	vip := s.Lab.Network.VIP.String()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, ServerName: vip}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(vip, strconv.Itoa(apiPort)))
	if err != nil {
		var wrong *tls.CertificateVerificationError
		if errors.As(err, &wrong) {
			return Bad, vip + ": " + firstLine(err.Error())
		}
		return Unknown, firstLine(err.Error())
	}
	conn.Close()
	return OK, vip + " shows a certificate of the lab's CA that names it"
}
