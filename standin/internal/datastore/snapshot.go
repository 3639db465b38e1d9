package datastore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"go.etcd.io/etcd/client/v3/snapshot"
	restore "go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"github.com/k3lab/k3lab/standin/internal/datadir"
)

// Snapshot is a snapshot file on this server.
type Snapshot struct {
	Name    string
	Path    string
	Size    int64
	Created time.Time
}

// Location is the file as K3s writes it into tables and objects.
func (s Snapshot) Location() string { return "file://" + s.Path }

// Save takes a snapshot of the local member, named <base>-<node>-<unix time>.
func Save(ctx context.Context, dir datadir.Dir, into, base, node string) (*Snapshot, error) {
	config, err := clientConfig(dir, []string{Local})
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(into, 0o700); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s-%s-%d", base, node, time.Now().Unix())
	path := filepath.Join(into, name)
	logrus.Infof("Saving etcd snapshot to %s", path)
	if _, err := snapshot.SaveWithVersion(ctx, zap.NewNop(), config, path); err != nil {
		return nil, fmt.Errorf("saving snapshot: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	logrus.Infof("Snapshot %s saved.", name)
	return &Snapshot{Name: name, Path: path, Size: info.Size(), Created: info.ModTime()}, nil
}

// List returns the snapshots in a directory, oldest first.
func List(dir string) ([]Snapshot, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found []Snapshot
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || strings.HasSuffix(entry.Name(), ".part") {
			continue
		}
		found = append(found, Snapshot{
			Name: entry.Name(), Path: filepath.Join(dir, entry.Name()),
			Size: info.Size(), Created: info.ModTime(),
		})
	}
	slices.SortStableFunc(found, func(a, b Snapshot) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	return found, nil
}

// Prune deletes all but the newest snapshots whose name starts with prefix.
func Prune(dir, prefix string, keep int) ([]Snapshot, error) {
	all, err := List(dir)
	if err != nil || keep < 1 {
		return nil, err
	}
	matching := slices.DeleteFunc(all, func(s Snapshot) bool { return !strings.HasPrefix(s.Name, prefix) })
	if len(matching) <= keep {
		return nil, nil
	}
	gone := matching[:len(matching)-keep]
	for _, s := range gone {
		if err := os.Remove(s.Path); err != nil {
			return nil, err
		}
		logrus.Infof("Snapshot %s deleted.", s.Name)
	}
	return gone, nil
}

// Restore makes a new one-member datastore from a snapshot. The old data are
// set aside, not deleted.
func Restore(m Member, path string) error {
	if err := SetAside(m.Dir); err != nil {
		return err
	}
	err := restore.NewV3(zap.NewNop()).Restore(restore.RestoreConfig{
		SnapshotPath:   path,
		Name:           m.Name,
		OutputDataDir:  m.Dir.Etcd(),
		PeerURLs:       []string{PeerURL(m.IP)},
		InitialCluster: m.Name + "=" + PeerURL(m.IP),
	})
	if err != nil {
		return fmt.Errorf("restoring %s: %w", path, err)
	}
	return datadir.WriteFile(m.Dir.Etcd("name"), []byte(m.Name), 0o600)
}
