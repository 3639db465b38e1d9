// Package join is the other end of the supervisor: how a server or an agent
// that has a URL and a token gets what it needs from the cluster.
package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3lab/k3lab/standin/internal/bootstrap"
	"github.com/k3lab/k3lab/standin/internal/protocol"
	"github.com/k3lab/k3lab/standin/internal/token"
)

const (
	requestTimeout = 15 * time.Second
	maxResponse    = 4 << 20
)

// Client talks to one supervisor whose CA the token vouches for.
type Client struct {
	url            string
	user, password string
	http           *http.Client
	// CA is the cluster's CA bundle.
	CA []byte
}

// StatusError is an answer other than success.
type StatusError struct {
	URL     string
	Code    int
	Message string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s: %d %s: %s", e.URL, e.Code, http.StatusText(e.Code), e.Message)
}

// Rejected reports whether err says that the credentials are no good, as
// opposed to a server that is not ready.
func Rejected(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && (status.Code == http.StatusUnauthorized || status.Code == http.StatusForbidden)
}

// Dial fetches the cluster's CA from url, checks it against the token, and
// returns a client that trusts nothing else. A token without a user is sent as
// defaultUser.
func Dial(ctx context.Context, url, tokenText, defaultUser string) (*Client, error) {
	parsed, err := token.Parse(tokenText)
	if err != nil {
		return nil, err
	}
	bundle, err := fetchCA(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("failed to get CA certs: %w", err)
	}
	if err := parsed.CheckCA(bundle); err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return nil, fmt.Errorf("%s/cacerts holds no certificate", url)
	}
	c := &Client{url: url, CA: bundle, http: newHTTP(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})}
	c.user, c.password = parsed.Credentials(defaultUser)
	return c, nil
}

func newHTTP(config *tls.Config) *http.Client {
	return &http.Client{
		Timeout:   requestTimeout,
		Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true},
	}
}

// fetchCA cannot verify whom it talks to; what it fetches is checked against
// the token's hash, or trusted on first use when the token has none.
func fetchCA(ctx context.Context, url string) ([]byte, error) {
	insecure := newHTTP(&tls.Config{InsecureSkipVerify: true}) //nolint:gosec // see above
	c := &Client{url: url, http: insecure}
	return c.do(ctx, http.MethodGet, "/cacerts", nil, nil)
}

func (c *Client) do(ctx context.Context, method, path string, body []byte, headers map[string]string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if c.user != "" {
		request.SetBasicAuth(c.user, c.password)
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxResponse))
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 != 2 {
		return nil, &StatusError{URL: c.url + path, Code: response.StatusCode, Message: message(data)}
	}
	return data, nil
}

func message(data []byte) string {
	var status metav1.Status
	if json.Unmarshal(data, &status) == nil && status.Message != "" {
		return status.Message
	}
	return string(bytes.TrimSpace(data))
}

func getJSON[T any](ctx context.Context, c *Client, path string) (T, error) {
	var value T
	data, err := c.do(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return value, err
	}
	if err := json.Unmarshal(data, &value); err != nil {
		return value, fmt.Errorf("%s%s: %w", c.url, path, err)
	}
	return value, nil
}

// Bootstrap fetches what servers share.
func (c *Client) Bootstrap(ctx context.Context) (bootstrap.Bundle, error) {
	return getJSON[bootstrap.Bundle](ctx, c, "/v1-k3s/server-bootstrap")
}

// RotateToken has the server take a new token.
func (c *Client) RotateToken(ctx context.Context, request protocol.TokenRequest) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	_, err = c.do(ctx, http.MethodPut, "/v1-k3s/token", body, nil)
	return err
}

// Members lists the datastore's members.
func (c *Client) Members(ctx context.Context) (protocol.DBInfo, error) {
	return getJSON[protocol.DBInfo](ctx, c, "/db/info")
}

// AgentConfig fetches the cluster's settings.
func (c *Client) AgentConfig(ctx context.Context) (protocol.AgentConfig, error) {
	return getJSON[protocol.AgentConfig](ctx, c, "/v1-k3s/config")
}

// APIServers lists where the API can be reached.
func (c *Client) APIServers(ctx context.Context) ([]string, error) {
	return getJSON[[]string](ctx, c, "/v1-k3s/apiservers")
}

// ClientCA fetches the CA that signs clients of the API and of kubelets.
func (c *Client) ClientCA(ctx context.Context) ([]byte, error) {
	return c.do(ctx, http.MethodGet, "/v1-k3s/client-ca.crt", nil, nil)
}

// Identity is how a node introduces itself.
type Identity struct {
	Name, Password, IP string
}

// The certificates a node asks for.
const (
	KubeletClient  = "/v1-k3s/client-kubelet.crt"
	KubeletServing = "/v1-k3s/serving-kubelet.crt"
)

// Certificate has a request signed for the node.
func (c *Client) Certificate(ctx context.Context, path string, node Identity, request []byte) ([]byte, error) {
	return c.do(ctx, http.MethodPost, path, request, map[string]string{
		protocol.HeaderNodeName:     node.Name,
		protocol.HeaderNodePassword: node.Password,
		protocol.HeaderNodeIP:       node.IP,
	})
}
