// Package server is `k3s server`: it brings up the datastore, the control
// plane and the node half, in that order, and keeps them together.
package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3lab/k3lab/standin/internal/agent"
	"github.com/k3lab/k3lab/standin/internal/component"
	"github.com/k3lab/k3lab/standin/internal/datadir"
	"github.com/k3lab/k3lab/standin/internal/datastore"
	"github.com/k3lab/k3lab/standin/internal/kubeconfig"
	"github.com/k3lab/k3lab/standin/internal/kubelet"
	"github.com/k3lab/k3lab/standin/internal/lb"
	"github.com/k3lab/k3lab/standin/internal/options"
	"github.com/k3lab/k3lab/standin/internal/token"
	"github.com/k3lab/k3lab/standin/internal/version"
)

const (
	pollInterval = 100 * time.Millisecond
	// localAPIPort is where K3s's own API server listens on a server, and an
	// agent's load balancer on an agent.
	localAPIPort = "6444"
)

// server is one run of `k3s server`.
type server struct {
	*options.Server
	password      string
	agentPassword string
	member        datastore.Member
	children      *component.Supervisor
	etcd          *clientv3.Client
	rest          *rest.Config
	kube          kubernetes.Interface
}

// Run is `k3s server` without --cluster-reset. It returns when ctx is done or
// a component ends, which is always an error.
func Run(ctx context.Context, settings *options.Server) error {
	started := time.Now()
	s := &server{Server: settings, children: component.NewSupervisor()}
	logrus.Infof("Starting k3s %s (k3lab stand-in)", version.Version)
	if err := os.Remove(s.Dir.ResetFlag()); err != nil && !os.IsNotExist(err) {
		return err
	}
	ctx, cancel := s.children.Guard(ctx)
	defer cancel(nil)
	defer s.children.Stop()
	err := s.run(ctx, started)
	if cause := context.Cause(ctx); cause != nil && cause != context.Canceled { //nolint:errorlint // identity is meant
		return cause
	}
	return err
}

func (s *server) run(ctx context.Context, started time.Time) error {
	if err := s.prepare(ctx); err != nil {
		return fmt.Errorf("preparing server: %w", err)
	}
	if err := s.startDatastore(ctx); err != nil {
		return fmt.Errorf("starting datastore: %w", err)
	}
	defer s.etcd.Close()
	if err := s.startAPI(ctx); err != nil {
		return fmt.Errorf("starting kubernetes: %w", err)
	}
	if err := s.startControllers(); err != nil {
		return err
	}
	if err := s.writeKubeconfig(); err != nil {
		return err
	}
	if err := applyDefinitions(ctx, s.rest, !s.DisableHelm); err != nil {
		return fmt.Errorf("creating K3s's resource definitions: %w", err)
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		logrus.Warnf("Failed to notify systemd: %v", err)
	}
	logrus.Infof("k3s is up and running after %s", time.Since(started).Round(pollInterval))
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.serveLocally(ctx) })
	group.Go(func() error { return s.keepSnapshots(ctx) })
	group.Go(func() error { return tendNodes(ctx, s.kube, s.etcd) })
	if !s.DisableAgent {
		group.Go(func() error { return s.runNode(ctx) })
	}
	return group.Wait()
}

// startDatastore starts etcd and waits until the member votes.
func (s *server) startDatastore(ctx context.Context) error {
	config, err := s.member.WriteConfig()
	if err != nil {
		return err
	}
	if err := s.children.Start(component.Etcd, config); err != nil {
		return err
	}
	if s.etcd, err = datastore.NewClient(s.Dir, datastore.Local); err != nil {
		return err
	}
	go datastore.Steward(ctx, s.etcd)
	if err := datastore.WaitVoter(ctx, s.etcd); err != nil {
		return err
	}
	return datastore.SyncBootstrap(ctx, s.etcd, s.Dir, s.password)
}

// startAPI starts the API server and waits until it says it is ready.
func (s *server) startAPI(ctx context.Context) error {
	config, err := s.supervisorConfig().Save()
	if err != nil {
		return err
	}
	args := component.APIServerArgs(s.Server, fmt.Sprint(s.Port), datastore.Local)
	if err := s.children.Start(component.APIServer, append([]string{config}, args...)...); err != nil {
		return err
	}
	if s.rest, err = clientcmd.BuildConfigFromFlags("", s.Dir.Cred("supervisor.kubeconfig")); err != nil {
		return err
	}
	s.rest.UserAgent = "k3s"
	if s.kube, err = kubernetes.NewForConfig(s.rest); err != nil {
		return err
	}
	return s.waitReady(ctx)
}

func (s *server) waitReady(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		_, err := s.kube.Discovery().RESTClient().Get().AbsPath("/readyz").Timeout(time.Second).DoRaw(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (s *server) startControllers() error {
	if err := s.children.Start(component.ControllerManager, component.ControllerManagerArgs(s.Server)...); err != nil {
		return err
	}
	if s.DisableScheduler {
		return nil
	}
	return s.children.Start(component.Scheduler, component.SchedulerArgs(s.Server)...)
}

func (s *server) apiURL() string {
	return "https://" + net.JoinHostPort("127.0.0.1", fmt.Sprint(s.Port))
}

func (s *server) writeKubeconfig() error {
	err := kubeconfig.WriteAdmin(s.Kubeconfig, s.KubeconfigMode, kubeconfig.Files{
		Server: s.apiURL(), CA: s.Dir.TLS("server-ca.crt"),
		Cert: s.Dir.TLS("client-admin.crt"), Key: s.Dir.TLS("client-admin.key"),
	})
	if err == nil {
		logrus.Infof("Wrote kubeconfig %s", s.Kubeconfig)
	}
	return err
}

// serveLocally opens the local ports that are neither a component's nor the
// node's.
func (s *server) serveLocally(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", localAPIPort))
	if err != nil {
		return err
	}
	if !s.DisableCCM {
		ca, err := os.ReadFile(s.Dir.TLS("client-ca.crt"))
		if err != nil {
			return err
		}
		config, err := agent.ServingTLS(s.Dir.TLS("serving-kube-apiserver.crt"), s.Dir.TLS("serving-kube-apiserver.key"), ca)
		if err != nil {
			return err
		}
		if err := kubelet.ServeCloudController(ctx, config); err != nil {
			return err
		}
	}
	lb.New(strings.TrimPrefix(s.apiURL(), "https://")).Serve(ctx, listener)
	return ctx.Err()
}

func (s *server) runNode(ctx context.Context) error {
	agentToken, err := os.ReadFile(s.Dir.Server("agent-token"))
	if err != nil {
		return err
	}
	encryption, err := s.encryptionHash()
	if err != nil {
		return err
	}
	n := agent.Node{
		Node:           s.Node,
		URL:            s.apiURL(),
		EtcdName:       s.member.Name,
		EncryptionHash: encryption,
		Voter:          func(ctx context.Context) (bool, error) { return datastore.IsVoter(ctx, s.etcd) },
		Admin:          s.kube,
		KubeProxy:      !s.DisableKubeProxy,
	}
	n.Token = strings.TrimSpace(string(agentToken))
	return n.Run(ctx, func() {})
}

// encryptionHash is the digest of what secrets are encrypted with, in
// hexadecimal; empty where they are not.
func (s *server) encryptionHash() (string, error) {
	if !s.SecretsEncryption {
		return "", nil
	}
	config, err := os.ReadFile(s.Dir.Cred("encryption-config.json"))
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(config)
	return hex.EncodeToString(sum[:]), nil
}

// writeTokens writes the token files: one for servers, and one for agents that
// is a link to the first unless agents have a token of their own.
func (s *server) writeTokens() error {
	ca, err := os.ReadFile(s.Dir.TLS("server-ca.crt"))
	if err != nil {
		return err
	}
	file := s.Dir.Server("token")
	if err := datadir.WriteFile(file, []byte(token.Format(ca, token.UserServer, s.password)+"\n"), 0o600); err != nil {
		return err
	}
	if err := link(file, s.Dir.Server("node-token")); err != nil {
		return err
	}
	agentFile := s.Dir.Server("agent-token")
	if s.agentPassword == s.password {
		return link(file, agentFile)
	}
	if err := os.Remove(agentFile); err != nil && !os.IsNotExist(err) {
		return err
	}
	return datadir.WriteFile(agentFile, []byte(token.Format(ca, token.UserAgent, s.agentPassword)+"\n"), 0o600)
}

func link(target, name string) error {
	if now, err := os.Readlink(name); err == nil && now == target {
		return nil
	}
	if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return os.Symlink(target, name)
}
