package datastore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/k3lab/k3lab/standin/internal/bootstrap"
	"github.com/k3lab/k3lab/standin/internal/datadir"
	"github.com/k3lab/k3lab/standin/internal/token"
)

const (
	tombstoneName  = "tombstone"
	requestTimeout = 5 * time.Second
	pollInterval   = 100 * time.Millisecond
)

// NewClient connects to members with this server's client certificate.
func NewClient(dir datadir.Dir, endpoints ...string) (*clientv3.Client, error) {
	config, err := clientConfig(dir, endpoints)
	if err != nil {
		return nil, err
	}
	return clientv3.New(config)
}

func clientConfig(dir datadir.Dir, endpoints []string) (clientv3.Config, error) {
	tls, err := transport.TLSInfo{
		CertFile:      dir.TLS("etcd", "client.crt"),
		KeyFile:       dir.TLS("etcd", "client.key"),
		TrustedCAFile: dir.TLS("etcd", "server-ca.crt"),
	}.ClientConfig()
	if err != nil {
		return clientv3.Config{}, err
	}
	return clientv3.Config{
		Endpoints:            endpoints,
		TLS:                  tls,
		DialTimeout:          requestTimeout,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: requestTimeout,
		Logger:               zap.NewNop(),
	}, nil
}

// MemberName returns this server's member name, <node>-<8 hex>. It is kept, so
// that the member is recognised as long as its data live.
func MemberName(dir datadir.Dir, node string) (string, error) {
	data, err := os.ReadFile(dir.Etcd("name"))
	if err == nil {
		return strings.TrimSpace(string(data)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	name := node + "-" + token.Random(4)
	return name, datadir.WriteFile(dir.Etcd("name"), []byte(name), 0o600)
}

// NodeOf is the node a member belongs to.
func NodeOf(member string) string {
	if i := strings.LastIndex(member, "-"); i > 0 {
		return member[:i]
	}
	return member
}

// Bury moves the data of a member that was removed from its cluster out of the
// way and reports whether it did.
func Bury(dir datadir.Dir) (bool, error) {
	if _, err := os.Stat(dir.Etcd(tombstoneName)); err != nil {
		return false, nil //nolint:nilerr // no tombstone is the normal case
	}
	return true, SetAside(dir)
}

// SetAside renames the datastore directory, so that a new one can be made.
func SetAside(dir datadir.Dir) error {
	old := fmt.Sprintf("%s-old-%d", dir.Etcd(), time.Now().Unix())
	err := os.Rename(dir.Etcd(), old)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// WaitVoter returns when the local member answers, knows a leader, and may
// vote. Before that the API server cannot work on it.
func WaitVoter(ctx context.Context, client *clientv3.Client) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	saidLearner := false
	for {
		status, err := status(ctx, client)
		switch {
		case err != nil:
			logrus.Debugf("Waiting for etcd: %v", err)
		case status.IsLearner && !saidLearner:
			logrus.Info("This server is an etcd learner; waiting to be promoted to voting member")
			saidLearner = true
		case !status.IsLearner && status.Leader != 0:
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// status asks over the client's connection. The client's own Status opens a new
// one each time, which adds up for a question asked twice a second.
func status(ctx context.Context, client *clientv3.Client) (*etcdserverpb.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return etcdserverpb.NewMaintenanceClient(client.ActiveConnection()).Status(ctx, &etcdserverpb.StatusRequest{})
}

// IsVoter reports whether the local member votes.
func IsVoter(ctx context.Context, client *clientv3.Client) (bool, error) {
	s, err := status(ctx, client)
	if err != nil {
		return false, err
	}
	return !s.IsLearner, nil
}

// SyncBootstrap puts this server's bundle into the datastore if none is there,
// and otherwise makes sure that the token opens the one that is.
func SyncBootstrap(ctx context.Context, client *clientv3.Client, dir datadir.Dir, password string) error {
	ctx, cancel := context.WithTimeout(ctx, 6*requestTimeout)
	defer cancel()
	found, err := client.Get(ctx, bootstrap.KeyPrefix, clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("reading bootstrap data: %w", err)
	}
	if len(found.Kvs) > 0 {
		_, err := findBundle(found, password)
		return err
	}
	bundle, err := bootstrap.Read(dir)
	if err != nil {
		return err
	}
	sealed, err := bundle.Seal(password)
	if err != nil {
		return err
	}
	_, err = client.Put(ctx, bootstrap.Key(password), string(sealed))
	return err
}

// RotateBootstrap puts the bundle under a new password in the place of the one
// under the old.
func RotateBootstrap(ctx context.Context, client *clientv3.Client, dir datadir.Dir, old, password string) error {
	ctx, cancel := context.WithTimeout(ctx, 6*requestTimeout)
	defer cancel()
	bundle, err := bootstrap.Read(dir)
	if err != nil {
		return err
	}
	sealed, err := bundle.Seal(password)
	if err != nil {
		return err
	}
	change := []clientv3.Op{clientv3.OpPut(bootstrap.Key(password), string(sealed))}
	if old != password {
		change = append(change, clientv3.OpDelete(bootstrap.Key(old)))
	}
	_, err = client.Txn(ctx).Then(change...).Commit()
	return err
}

// FetchBootstrap reads the bundle from the datastore.
func FetchBootstrap(ctx context.Context, client *clientv3.Client, password string) (bootstrap.Bundle, error) {
	ctx, cancel := context.WithTimeout(ctx, 6*requestTimeout)
	defer cancel()
	found, err := client.Get(ctx, bootstrap.KeyPrefix, clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("reading bootstrap data: %w", err)
	}
	return findBundle(found, password)
}

func findBundle(found *clientv3.GetResponse, password string) (bootstrap.Bundle, error) {
	for _, kv := range found.Kvs {
		if string(kv.Key) == bootstrap.Key(password) {
			return bootstrap.Open(kv.Value, password)
		}
	}
	if len(found.Kvs) == 0 {
		return nil, errors.New("the datastore holds no bootstrap data")
	}
	return nil, bootstrap.ErrWrongToken
}
