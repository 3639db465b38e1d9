package op

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/release"
	"github.com/k3lab/k3lab/internal/step"
	"github.com/k3lab/k3lab/internal/workspace"
)

// LockOptions are the options of Lock.
type LockOptions struct {
	LabOptions
	Channel string // of K3s: stable, latest, v1.36; empty: the version in the settings stays
	Force   bool   // also where a cluster could not follow, or a digest is another than the locked one
	// Confirm is shown the changes, unless there are none, and says whether to go on.
	Confirm func(changes []step.Change) (bool, error)
}

// LockResult is what Lock ends with.
type LockResult struct {
	Version  string        `json:"version"`
	Changes  []step.Change `json:"changes"`
	Declined bool          `json:"declined,omitempty"`
}

const (
	settingsFile = "ansible/group_vars/all.yaml"
	versionKey   = "k3s.version"
)

// Lock resolves a channel to a version, writes it into the settings, and the
// digests that the release publishes into the lock file.
func Lock(ctx context.Context, opts LockOptions) (_ *LockResult, err error) {
	s, err := openSettings(opts.LabOptions)
	if err != nil {
		return nil, err
	}
	held, err := workspace.AcquireLock(s.dir, "lock")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, held.Release()) }()
	source, err := s.releases()
	if err != nil {
		return nil, err
	}
	before := s.lab.K3s.Version
	if source.Version, err = s.resolve(ctx, source, opts); err != nil {
		return nil, err
	}
	published, err := s.publish(ctx, source, s.downloads())
	if err != nil {
		return nil, err
	}
	if err := sameAsLocked(source.Locked, published, opts.Force); err != nil {
		return nil, err
	}
	// The version before stays known until the cluster has left it.
	digests := source.Locked.With(published).KeepVersions(before, source.Version)
	result := &LockResult{Version: source.Version}
	settings, err := s.changes(source, digests, result)
	if err != nil || len(result.Changes) == 0 {
		return result, err
	}
	if ok, err := opts.Confirm(result.Changes); err != nil || !ok {
		result.Declined = true
		return result, err
	}
	if err := digests.Write(s.dir.Path(release.LockFile)); err != nil {
		return nil, err
	}
	if err := renameio.WriteFile(s.dir.Path(settingsFile), settings, 0o644); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	return result, nil
}

// resolve returns the version to lock.
func (s *session) resolve(ctx context.Context, source *release.Source, opts LockOptions) (string, error) {
	if opts.Channel == "" {
		return s.lab.K3s.Version, nil
	}
	to, err := release.Resolve(ctx, &source.Get, s.computer.K3sChannels, opts.Channel)
	if err != nil || opts.Force {
		return to, err
	}
	return to, release.CheckMove(s.lab.K3s.Version, to)
}

// sameAsLocked refuses what has changed under a name that was published before: no
// release does that.
func sameAsLocked(locked, published release.Digests, force bool) error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(published)) {
		if was := locked[key]; was != "" && was != published[key] && !force {
			errs = append(errs, fault.New(fault.Invalid, release.LockFile, "find out who has changed it, before --force",
				"%s: locked is the SHA-256 %s, but now %s is published", key, was, published[key]))
		}
	}
	return errors.Join(errs...)
}

// changes adds to the result what is to be written, and returns the settings.
func (s *session) changes(source *release.Source, digests release.Digests, result *LockResult) ([]byte, error) {
	src, err := os.ReadFile(s.dir.Path(settingsFile))
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	settings, err := config.Set(settingsFile, src, versionKey, source.Version)
	if err != nil {
		return nil, err
	}
	if string(settings) != string(src) {
		c := lockChange(settingsFile)
		c.Action, c.Detail, c.Before, c.After = step.Update, "K3s "+s.lab.K3s.Version+" → "+source.Version, string(src), string(settings)
		result.Changes = append(result.Changes, c)
	}
	old, err := os.ReadFile(s.dir.Path(release.LockFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", release.LockFile, err)
	}
	if text := digests.Text(); text != string(old) {
		c := lockChange(release.LockFile)
		c.Detail = strings.Join(release.Changed(source.Locked, digests), ", ")
		c.Before, c.After = string(old), text
		if old != nil {
			c.Action = step.Update
		}
		result.Changes = append(result.Changes, c)
	}
	return settings, nil
}
