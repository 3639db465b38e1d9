package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/k3lab/k3lab/standin/internal/component"
	"github.com/k3lab/k3lab/standin/internal/datadir"
	"github.com/k3lab/k3lab/standin/internal/datastore"
	"github.com/k3lab/k3lab/standin/internal/options"
)

// Reset is `k3s server --cluster-reset`: it makes this server's member the only
// one, first replacing its data with a snapshot's if one is given. It ends by
// itself; the server is then started normally.
func Reset(ctx context.Context, settings *options.Server) error {
	s := &server{Server: settings, children: component.NewSupervisor()}
	if _, err := os.Stat(s.Dir.ResetFlag()); err == nil {
		return fmt.Errorf("cluster-reset was successfully performed, please remove the cluster-reset flag and start k3s "+
			"normally, if you need to perform another cluster-reset, you must first manually delete the %s file", s.Dir.ResetFlag())
	}
	if listening(ctx, datastore.Local) {
		return errors.New("etcd is running on this server: stop k3s before --cluster-reset")
	}
	if s.RestorePath == "" && !s.Dir.EtcdInitialized() {
		return fmt.Errorf("etcd database not found in %s", s.Dir.Etcd())
	}
	if err := s.Dir.MakeServer(); err != nil {
		return err
	}
	if err := s.settlePassword(); err != nil {
		return err
	}
	// On a machine that has nothing but a snapshot these are made up; the
	// snapshot's own replace them below.
	if err := s.makeFiles(); err != nil {
		return err
	}
	if err := s.nameMember(); err != nil {
		return err
	}
	if s.RestorePath != "" {
		if err := s.restore(); err != nil {
			return err
		}
	}
	if err := s.reset(ctx); err != nil {
		return err
	}
	logrus.Info("Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. " +
		"Backup and delete ${datadir}/server/db on each peer etcd server and rejoin the nodes")
	return datadir.WriteFile(s.Dir.ResetFlag(), nil, 0o600)
}

func (s *server) restore() error {
	if _, err := os.Stat(s.RestorePath); err != nil {
		return fmt.Errorf("etcd: snapshot path does not exist: %s", s.RestorePath)
	}
	logrus.Infof("Restoring etcd snapshot %s", s.RestorePath)
	return datastore.Restore(s.member, s.RestorePath)
}

// reset starts the member once as the only one, and takes what servers share
// from its data.
func (s *server) reset(ctx context.Context) error {
	ctx, cancel := s.children.Guard(ctx)
	defer cancel(nil)
	defer s.children.Stop()
	s.member.ForceNew = true
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
	defer s.etcd.Close()
	if err := datastore.WaitVoter(ctx, s.etcd); err != nil {
		return context.Cause(ctx)
	}
	bundle, err := datastore.FetchBootstrap(ctx, s.etcd, s.password)
	if err != nil {
		return err
	}
	if err := bundle.Write(s.Dir); err != nil {
		return err
	}
	return s.makeFiles()
}

func listening(ctx context.Context, url string) bool {
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", strings.TrimPrefix(url, "https://"))
	if err != nil {
		return false
	}
	_ = conn.Close() // it was only a question
	return true
}
