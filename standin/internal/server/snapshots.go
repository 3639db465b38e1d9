package server

import (
	"context"

	"github.com/robfig/cron/v3"
	"github.com/sirupsen/logrus"

	"github.com/k3lab/k3lab/standin/internal/datastore"
	"github.com/k3lab/k3lab/standin/internal/snapshotfiles"
)

// keepSnapshots takes snapshots on schedule and keeps the objects that list
// them in step with the files.
func (s *server) keepSnapshots(ctx context.Context) error {
	files, err := snapshotfiles.New(s.rest, s.Name)
	if err != nil {
		return err
	}
	sync := func() {
		if err := files.Sync(ctx, s.Snapshots.Dir); err != nil && ctx.Err() == nil {
			logrus.Warnf("Failed to list snapshots in the cluster: %v", err)
		}
	}
	sync()
	if s.Snapshots.Disabled || s.Snapshots.Cron == "" {
		<-ctx.Done()
		return ctx.Err()
	}
	schedule := cron.New()
	_, err = schedule.AddFunc(s.Snapshots.Cron, func() {
		if _, err := datastore.Save(ctx, s.Dir, s.Snapshots.Dir, s.Snapshots.Name, s.Name); err != nil {
			logrus.Errorf("Failed to take etcd snapshot: %v", err)
			return
		}
		if _, err := datastore.Prune(s.Snapshots.Dir, s.Snapshots.Name, s.Snapshots.Retention); err != nil {
			logrus.Errorf("Failed to apply snapshot retention: %v", err)
		}
		sync()
	})
	if err != nil {
		return err
	}
	schedule.Start()
	<-ctx.Done()
	<-schedule.Stop().Done()
	return ctx.Err()
}
