package op

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/k3lab/k3lab/internal/apps"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/release"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// newCharts is where charts come from, with the digests that are locked now.
func (s *session) newCharts() (*apps.Charts, error) {
	locked, err := release.ReadDigests(s.dir.Path(release.LockFile))
	if err != nil {
		return nil, err
	}
	return &apps.Charts{
		Cache: filepath.Join(s.dir.Cache(), "charts"), Vendor: s.dir.Path(apps.VendorDir), Locked: locked, Get: &release.Downloader{},
	}, nil
}

// lockCharts writes down the digests of charts whose first use was shown.
func (p *applications) lockCharts(changes []step.Change) error {
	shown := func(c step.Change) bool { return c.Resource == "file "+release.LockFile }
	if len(p.charts.Found()) == 0 || !slices.ContainsFunc(changes, shown) {
		return nil
	}
	return p.charts.Locked.With(p.charts.Found()).Write(p.dir.Path(release.LockFile))
}

// VendorApps puts the charts of all apps into the workspace and returns the files
// it wrote. It needs no cluster.
func VendorApps(ctx context.Context, opts AppsOptions) (files []string, err error) {
	err = withApps(opts, "apps vendor", func(s *session, _ *applications) error {
		list, err := apps.Read(s.dir.Root())
		if err != nil {
			return err
		}
		charts, err := s.newCharts()
		if err != nil {
			return err
		}
		files, err = charts.Keep(ctx, list)
		if found := charts.Found(); len(found) > 0 {
			err = errors.Join(err, charts.Locked.With(found).Write(s.dir.Path(release.LockFile)))
		}
		return err
	})
	return files, err
}

// RollbackApp puts an app back to a revision; 0: the last good one before.
func RollbackApp(ctx context.Context, opts AppsOptions, revision int) (to int, err error) {
	err = withApps(opts, "apps rollback", func(_ *session, p *applications) error {
		return (step.Sequence{&rollback{p, revision, &to}}).Apply(ctx, opts.Reporter, step.Plan{{{Layer: apps.Layer, Object: opts.Names[0]}}})
	})
	return to, err
}

// rollback is the step that puts one app back.
type rollback struct {
	*applications
	revision int
	to       *int
}

func (b *rollback) Title() string { return "Roll-back" }

// Verified says that Apply has awaited the app's health.
func (b *rollback) Verified() bool { return true }

// Plan is empty: what a revision holds is compared when it is put back.
func (b *rollback) Plan(context.Context, report.Reporter) ([]step.Change, error) { return nil, nil }

// Apply puts the app back under the lease.
func (b *rollback) Apply(ctx context.Context, w step.Writer, changes []step.Change) error {
	client, err := b.client(ctx)
	if err != nil {
		return fmt.Errorf("apps: %w", err)
	}
	return holding(appsLease).Hold(ctx, client.Client, func(ctx context.Context) (err error) {
		list, err := apps.Read(b.dir.Root())
		if err != nil {
			return err
		}
		name := changes[0].Object
		if !slices.ContainsFunc(list, func(a *apps.App) bool { return a.Name == name }) {
			return fault.New(fault.Invalid, name, "k3lab apps list", "there is no app of that name in %s", apps.Dir)
		}
		*b.to, err = apps.New(ctx, client.Client, b.dir.Root(), list, nil).Rollback(ctx, w, name, b.revision)
		return err
	})
}
