package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/sirupsen/logrus"

	"github.com/k3lab/k3lab/standin/internal/datadir"
	"github.com/k3lab/k3lab/standin/internal/datastore"
	"github.com/k3lab/k3lab/standin/internal/encryption"
	"github.com/k3lab/k3lab/standin/internal/join"
	"github.com/k3lab/k3lab/standin/internal/pki"
	"github.com/k3lab/k3lab/standin/internal/protocol"
	"github.com/k3lab/k3lab/standin/internal/supervisor"
	"github.com/k3lab/k3lab/standin/internal/token"
)

// prepare makes everything the components need on disk. A server that has a
// datastore member starts from its own files, whoever else is up; one that has
// none fetches what servers share from the cluster it is to join, or founds a
// cluster.
func (s *server) prepare(ctx context.Context) error {
	buried, err := datastore.Bury(s.Dir)
	if err != nil {
		return err
	}
	if buried && s.ServerURL == "" {
		return errors.New("this server was removed from its cluster and has no --server to join again")
	}
	if err := s.Dir.MakeServer(); err != nil {
		return err
	}
	joining := !s.Dir.EtcdInitialized() && s.ServerURL != ""
	if s.ServerURL == "" && !s.ClusterInit && !s.Dir.EtcdInitialized() {
		logrus.Info("The k3lab stand-in has no SQLite: using embedded etcd as with --cluster-init")
	}
	var peer *join.Client
	if joining {
		if peer, err = s.fetchShared(ctx); err != nil {
			return err
		}
	}
	if err := s.settlePassword(); err != nil {
		return err
	}
	if err := s.makeFiles(); err != nil {
		return err
	}
	if err := s.nameMember(); err != nil || !joining {
		return err
	}
	info, err := peer.Members(ctx)
	if err != nil {
		return err
	}
	s.member.Joining = true
	s.member.InitialCluster, err = datastore.Join(ctx, s.Dir, s.member.Name, s.IP, clientURLs(info))
	return err
}

// nameMember describes this server's datastore member as the only one of its
// cluster, which holds for a founder and does not matter to a known member.
func (s *server) nameMember() error {
	name, err := datastore.MemberName(s.Dir, s.Name)
	s.member = datastore.Member{
		Dir: s.Dir, Name: name, IP: s.IP, ExposeMetrics: s.ExposeEtcdMetrics, Args: s.EtcdArgs,
		InitialCluster: name + "=" + datastore.PeerURL(s.IP),
	}
	return err
}

// clientURLs are the endpoints of those members that can answer.
func clientURLs(info protocol.DBInfo) []string {
	var urls []string
	for _, member := range info.Members {
		if !member.IsLearner {
			urls = append(urls, member.ClientURLs...)
		}
	}
	return urls
}

// fetchShared gets what servers share. A server that is not up yet ends this
// one, as it does with K3s; systemd starts it again.
func (s *server) fetchShared(ctx context.Context) (*join.Client, error) {
	if s.Token == "" {
		return nil, errors.New("--token is required to join a cluster")
	}
	client, err := join.Dial(ctx, s.ServerURL, s.Token, token.UserServer)
	if err != nil {
		return nil, fmt.Errorf("failed to bootstrap cluster data: failed to validate token: %w", err)
	}
	bundle, err := client.Bootstrap(ctx)
	if err != nil {
		var status *join.StatusError
		if errors.As(err, &status) {
			err = errors.New(status.Message)
		}
		return nil, fmt.Errorf("failed to bootstrap cluster data: %w", err)
	}
	return client, bundle.Write(s.Dir)
}

// settlePassword decides on the server token's password: the configured one,
// or the one already in use, or a new one.
func (s *server) settlePassword() error {
	known, err := supervisor.ReadPassword(s.Dir.Cred("passwd"), token.UserServer)
	if err != nil {
		return err
	}
	knownAgent, err := supervisor.ReadPassword(s.Dir.Cred("passwd"), token.UserAgent)
	if err != nil {
		return err
	}
	switch {
	case s.Token != "":
		parsed, err := token.Parse(s.Token)
		if err != nil {
			return err
		}
		s.password = parsed.Password
		if ca, err := os.ReadFile(s.Dir.TLS("server-ca.crt")); err == nil {
			if err := parsed.CheckCA(ca); err != nil {
				return err
			}
		}
	case known != "":
		s.password = known
	default:
		s.password = token.Random(16)
	}
	s.agentPassword = s.password
	switch {
	case s.AgentToken != "":
		parsed, err := token.Parse(s.AgentToken)
		if err != nil {
			return fmt.Errorf("agent-token: %w", err)
		}
		s.agentPassword = parsed.Password
	case knownAgent != "" && known == s.password:
		// Another server of this cluster may have one configured.
		s.agentPassword = knownAgent
	}
	return nil
}

// makeFiles writes certificates, passwords, tokens and keys.
func (s *server) makeFiles() error {
	names, err := s.names()
	if err != nil {
		return err
	}
	if err := pki.EnsureServer(s.Dir, names); err != nil {
		return err
	}
	if err := supervisor.WriteUsers(s.Dir.Cred("passwd"), s.password, s.agentPassword); err != nil {
		return err
	}
	if _, err := os.Stat(s.Dir.Cred("ipsec.psk")); os.IsNotExist(err) {
		if err := datadir.WriteFile(s.Dir.Cred("ipsec.psk"), []byte(token.Random(24)+"\n"), 0o600); err != nil {
			return err
		}
	}
	if s.SecretsEncryption {
		if err := encryption.Ensure(s.Dir); err != nil {
			return err
		}
	}
	return s.writeTokens()
}

// names collects everything the certificates have to be valid for.
func (s *server) names() (pki.ServerNames, error) {
	service, err := s.APIServiceIP()
	if err != nil {
		return pki.ServerNames{}, fmt.Errorf("service-cidr: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return pki.ServerNames{}, err
	}
	local := []string{"localhost", "127.0.0.1", "::1", s.Name, host, s.IP}
	api := append(slices.Clone(local),
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc."+s.ClusterDomain,
		service, s.AdvertiseAddress)
	if s.ExternalIP != "" {
		api = append(api, s.ExternalIP)
	}
	return pki.ServerNames{API: append(api, s.TLSSANs...), Etcd: local, APIURL: s.apiURL()}, nil
}

func (s *server) supervisorConfig() supervisor.Config {
	return supervisor.Config{
		Dir: s.Dir,
		Agent: protocol.AgentConfig{
			ClusterCIDR: s.ClusterCIDR, ServiceCIDR: s.ServiceCIDR, ClusterDNS: s.ClusterDNS,
			ClusterDomain: s.ClusterDomain, FlannelBackend: s.FlannelBackend,
		},
	}
}
