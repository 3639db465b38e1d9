package datastore

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/k3lab/k3lab/standin/internal/datadir"
)

const (
	stewardInterval = 500 * time.Millisecond
	joinInterval    = time.Second
	// stalledAfter is how long a learner may take before it is removed: while
	// it is there, nobody else can join.
	stalledAfter = 5 * time.Minute
)

// Join adds this server to the cluster as a learner and returns the initial
// cluster its member must start with. It waits while another member is still
// joining, because a cluster takes one learner at a time.
func Join(ctx context.Context, dir datadir.Dir, name, ip string, endpoints []string) (string, error) {
	client, err := NewClient(dir, endpoints...)
	if err != nil {
		return "", err
	}
	defer client.Close()
	said := ""
	for {
		cluster, err := tryJoin(ctx, client, dir, name, ip)
		if err == nil {
			return cluster, nil
		}
		if !errors.Is(err, rpctypes.ErrTooManyLearners) && !errors.Is(err, rpctypes.ErrUnhealthy) {
			return "", fmt.Errorf("etcd cluster join failed: %w", err)
		}
		if said != err.Error() {
			logrus.Infof("Waiting for other members to finish joining etcd cluster: %v", err)
			said = err.Error()
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(joinInterval):
		}
	}
}

func tryJoin(ctx context.Context, client *clientv3.Client, dir datadir.Dir, name, ip string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	listed, err := client.MemberList(ctx)
	if err != nil {
		return "", err
	}
	var cluster []string
	added := false
	for _, member := range listed.Members {
		switch {
		case member.Name == "" && hasAddress(member, ip):
			// Added in an earlier attempt that got no further.
			added = true
		case member.Name != "" && NodeOf(member.Name) == NodeOf(name):
			// A new name, so that the node is free to join once the old
			// member is gone.
			if err := os.Remove(dir.Etcd("name")); err != nil && !errors.Is(err, os.ErrNotExist) {
				return "", err
			}
			return "", errors.New("duplicate node name found, please use a unique name for this node")
		default:
			for _, peer := range member.PeerURLs {
				cluster = append(cluster, member.Name+"="+peer)
			}
		}
	}
	if !added {
		logrus.Infof("Adding member %s=%s to etcd cluster %v", name, PeerURL(ip), cluster)
		if _, err := client.MemberAddAsLearner(ctx, []string{PeerURL(ip)}); err != nil {
			return "", err
		}
	}
	return strings.Join(append(cluster, name+"="+PeerURL(ip)), ","), nil
}

func hasAddress(member *etcdserverpb.Member, ip string) bool {
	return slices.ContainsFunc(member.PeerURLs, func(peer string) bool {
		u, err := url.Parse(peer)
		return err == nil && u.Hostname() == ip
	})
}

// Steward looks after the membership while this member leads: learners that
// have caught up are promoted, learners that got stuck are removed. It returns
// when ctx is done.
func Steward(ctx context.Context, client *clientv3.Client) {
	tick := time.NewTicker(stewardInterval)
	defer tick.Stop()
	since := map[uint64]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if leads, err := Leads(ctx, client); err != nil || !leads {
			clear(since)
			continue
		}
		if err := tend(ctx, client, since); err != nil {
			logrus.Warnf("Failed to manage etcd learners: %v", err)
		}
	}
}

// Leads reports whether the local member leads the cluster.
func Leads(ctx context.Context, client *clientv3.Client) (bool, error) {
	s, err := status(ctx, client)
	if err != nil {
		return false, err
	}
	return s.Leader == s.Header.MemberId, nil
}

func tend(ctx context.Context, client *clientv3.Client, since map[uint64]time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	listed, err := client.MemberList(ctx)
	if err != nil {
		return err
	}
	for _, member := range listed.Members {
		if !member.IsLearner {
			delete(since, member.ID)
			continue
		}
		if _, known := since[member.ID]; !known {
			since[member.ID] = time.Now()
		}
		if time.Since(since[member.ID]) > stalledAfter {
			logrus.Warnf("Removing learner %s, which makes no progress", member.Name)
			if _, err := client.MemberRemove(ctx, member.ID); err != nil {
				return err
			}
			continue
		}
		if member.Name == "" {
			// It has not announced itself yet. Promoted now, it would lose
			// its announcement and wait long before it repeats it.
			continue
		}
		_, err := client.MemberPromote(ctx, member.ID)
		if err == nil {
			logrus.Infof("Promoted learner %s", member.Name)
		} else if !errors.Is(err, rpctypes.ErrMemberLearnerNotReady) {
			return err
		}
	}
	return nil
}

// RemoveMember takes the member of that name out of the cluster. A member that
// is not there is removed already.
func RemoveMember(ctx context.Context, client *clientv3.Client, name string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	listed, err := client.MemberList(ctx)
	if err != nil {
		return err
	}
	for _, member := range listed.Members {
		if member.Name != name {
			continue
		}
		logrus.Infof("Removing member %s from etcd cluster", name)
		_, err := client.MemberRemove(ctx, member.ID)
		return err
	}
	return nil
}
