// Package agent joins a node to a cluster and plays it. Servers use it too, for
// the node half they have.
package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/k3lab/k3lab/standin/internal/datadir"
	"github.com/k3lab/k3lab/standin/internal/join"
	"github.com/k3lab/k3lab/standin/internal/kubeconfig"
	"github.com/k3lab/k3lab/standin/internal/kubelet"
	"github.com/k3lab/k3lab/standin/internal/lb"
	"github.com/k3lab/k3lab/standin/internal/options"
	"github.com/k3lab/k3lab/standin/internal/pki"
	"github.com/k3lab/k3lab/standin/internal/protocol"
	"github.com/k3lab/k3lab/standin/internal/token"
)

const (
	retryInterval = time.Second
	// balancerInterval is short because an agent that knows one server only
	// is lost with it.
	balancerInterval = 2 * time.Second
)

// Node is a node half to run.
type Node struct {
	options.Node
	// URL is where this node reaches supervisor and API.
	URL string
	// The rest is a server's; see kubelet.Config.
	EtcdName       string
	EncryptionHash string
	Voter          func(context.Context) (bool, error)
	Admin          kubernetes.Interface
	KubeProxy      bool
}

// Run is `k3s agent`: it never gives up joining, and returns when ctx is done.
func Run(ctx context.Context, node *options.Node) error {
	if err := noticeDeadServers(); err != nil {
		return err
	}
	servers := savedServers(node)
	balancer := lb.New(servers...)
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(node.LBPort)))
	if err != nil {
		return err
	}
	go balancer.Serve(ctx, listener)
	n := Node{Node: *node, URL: "https://" + listener.Addr().String(), KubeProxy: true}
	go n.followServers(ctx, balancer, servers[0])
	return n.Run(ctx, func() {
		if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
			logrus.Warnf("Failed to notify systemd: %v", err)
		}
		logrus.Info("k3s agent is up and running")
	})
}

// noticeDeadServers has client-go give up connections to a server that
// vanished without a word in 15 s. Its own 45 s are close to what makes a node
// NotReady.
func noticeDeadServers() error {
	if err := os.Setenv("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "10"); err != nil {
		return err
	}
	return os.Setenv("HTTP2_PING_TIMEOUT_SECONDS", "5")
}

// Run joins and then plays the node; ready is called once it is registered.
func (n Node) Run(ctx context.Context, ready func()) error {
	joined, err := n.join(ctx)
	if err != nil {
		return err
	}
	k, err := kubelet.New(kubelet.Config{
		Name: n.Name, IP: n.IP, ExternalIP: n.ExternalIP,
		Labels: n.Labels, Taints: n.Taints, Args: n.Args, KubeletArgs: n.KubeletArgs,
		ProxyArgs: n.ProxyArgs, ProtectKernel: n.ProtectKernel,
		Cluster: joined.config, EtcdName: n.EtcdName, EncryptionHash: n.EncryptionHash, Voter: n.Voter, Admin: n.Admin,
		KubeProxy: n.KubeProxy, TLS: joined.serving,
		Client: &rest.Config{
			Host: n.URL, UserAgent: "kubelet",
			TLSClientConfig: rest.TLSClientConfig{
				CAFile:   n.Dir.Agent("server-ca.crt"),
				CertFile: n.Dir.Agent("client-kubelet.crt"),
				KeyFile:  n.Dir.Agent("client-kubelet.key"),
			},
		},
	})
	if err != nil {
		return err
	}
	return k.Run(ctx, ready)
}

type membership struct {
	config  protocol.AgentConfig
	serving *tls.Config
}

// join asks until it is let in. Agents start before their servers as often as
// after them, so no answer is final, not even a refusal.
func (n Node) join(ctx context.Context) (*membership, error) {
	password, err := options.NodePassword()
	if err != nil {
		return nil, err
	}
	said := ""
	for {
		joined, err := n.tryJoin(ctx, password)
		if err == nil {
			return joined, nil
		}
		if text := explain(err, n.Name); text != said {
			logrus.Error(text)
			said = text
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(retryInterval):
		}
	}
}

func explain(err error, node string) string {
	var status *join.StatusError
	if errors.As(err, &status) && status.Code == 403 {
		return fmt.Sprintf("Node password rejected, duplicate hostname or contents of '%s' may not match server "+
			"node-passwd entry, try enabling a unique node name with the --with-node-id flag, or delete the Secret "+
			"%s.node-password.k3s: %v", datadir.NodePasswordFile, node, err)
	}
	if errors.As(err, &status) {
		err = errors.New(status.Message)
	}
	return fmt.Sprintf("Waiting to retrieve agent configuration; server is not ready: failed to retrieve configuration from server: %v", err)
}

func (n Node) tryJoin(ctx context.Context, password string) (*membership, error) {
	client, err := join.Dial(ctx, n.URL, n.Token, token.UserAgent)
	if err != nil {
		return nil, err
	}
	config, err := client.AgentConfig(ctx)
	if err != nil {
		return nil, err
	}
	clientCA, err := client.ClientCA(ctx)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(n.Dir.Agent(), 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(n.Dir.Agent(), 0o700); err != nil { // it may have been made for what lies in it
		return nil, err
	}
	if err := datadir.WriteFile(n.Dir.Agent("server-ca.crt"), client.CA, 0o644); err != nil {
		return nil, err
	}
	if err := datadir.WriteFile(n.Dir.Agent("client-ca.crt"), clientCA, 0o600); err != nil {
		return nil, err
	}
	identity := join.Identity{Name: n.Name, Password: password, IP: n.IP}
	for path, name := range map[string]string{
		join.KubeletClient:  "client-kubelet",
		join.KubeletServing: "serving-kubelet",
	} {
		if err := n.certify(ctx, client, path, name, identity); err != nil {
			return nil, err
		}
	}
	if err := kubeconfig.WriteFiles(n.Dir.Agent("kubelet.kubeconfig"), kubeconfig.Files{
		Server: n.URL, CA: n.Dir.Agent("server-ca.crt"),
		Cert: n.Dir.Agent("client-kubelet.crt"), Key: n.Dir.Agent("client-kubelet.key"),
	}); err != nil {
		return nil, err
	}
	serving, err := ServingTLS(n.Dir.Agent("serving-kubelet.crt"), n.Dir.Agent("serving-kubelet.key"), clientCA)
	if err != nil {
		return nil, err
	}
	return &membership{config: config, serving: serving}, nil
}

func (n Node) certify(ctx context.Context, client *join.Client, path, name string, identity join.Identity) error {
	request, err := pki.NewRequest(n.Dir.Agent(name + ".key"))
	if err != nil {
		return err
	}
	cert, err := client.Certificate(ctx, path, identity, request)
	if err != nil {
		return err
	}
	return datadir.WriteFile(n.Dir.Agent(name+".crt"), cert, 0o644)
}

// ServingTLS serves with a certificate and recognises, but does not require,
// clients of the cluster.
func ServingTLS(certFile, keyFile string, clientCA []byte) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(clientCA) {
		return nil, errors.New("the client CA holds no certificate")
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientCAs: clients,
		ClientAuth: tls.VerifyClientCertIfGiven, MinVersion: tls.VersionTLS12,
	}, nil
}

// balancerFile keeps the servers last seen, so that an agent restarts without
// the one its configuration names.
func balancerFile(n *options.Node) string {
	return n.Dir.Agent("etc", "k3s-agent-load-balancer.json")
}

type balancerState struct {
	ServerURL       string   `json:"ServerURL"`
	ServerAddresses []string `json:"ServerAddresses"`
}

// savedServers returns the configured server first.
func savedServers(n *options.Node) []string {
	configured := strings.TrimPrefix(n.ServerURL, "https://")
	if _, _, err := net.SplitHostPort(configured); err != nil {
		configured = net.JoinHostPort(configured, "443")
	}
	servers := []string{configured}
	var saved balancerState
	data, err := os.ReadFile(balancerFile(n))
	if err == nil && json.Unmarshal(data, &saved) == nil && saved.ServerURL == n.ServerURL {
		servers = append(servers, saved.ServerAddresses...)
	}
	return servers
}

// followServers keeps the balancer's servers those of the cluster, with the
// configured one (which may be a VIP) always among them.
func (n Node) followServers(ctx context.Context, balancer *lb.Balancer, configured string) {
	tick := time.NewTicker(balancerInterval)
	defer tick.Stop()
	for {
		if client, err := join.Dial(ctx, n.URL, n.Token, token.UserAgent); err == nil {
			servers, err := client.APIServers(ctx)
			if err == nil && len(servers) > 0 && balancer.Set(append(servers, configured)) {
				logrus.Infof("Updated load balancer server addresses -> %v", servers)
				n.save(servers)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (n Node) save(servers []string) {
	data, err := json.Marshal(balancerState{ServerURL: n.ServerURL, ServerAddresses: servers})
	if err == nil {
		err = datadir.WriteFile(balancerFile(&n.Node), data, 0o600)
	}
	if err != nil {
		logrus.Warnf("Failed to save load balancer servers: %v", err)
	}
}
