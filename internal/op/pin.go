package op

import (
	"context"
	"slices"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/release"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// pin is the step that writes down the digests of a version that is used for the
// first time, as the release publishes them now. From then on nothing else is taken.
type pin struct{ *session }

func (p *pin) Title() string { return "Digests" }

// Plan asks the release. Where it does not answer that is not an error yet: what
// is to be downloaded may be needed only later.
func (p *pin) Plan(ctx context.Context, _ report.Reporter) ([]step.Change, error) {
	change, _, err := p.change(ctx)
	if err != nil && fault.KindOf(err) == fault.Unreachable {
		change.Deferred = short(err)
		return []step.Change{change}, nil
	}
	if err != nil {
		return nil, err
	}
	return []step.Change{change}, nil
}

// Apply writes the lock file.
func (p *pin) Apply(ctx context.Context, w step.Writer, _ []step.Change) error {
	change, digests, err := p.change(ctx)
	if err != nil {
		return err
	}
	if err := digests.Write(p.dir.Path(release.LockFile)); err != nil {
		return err
	}
	w.Report(report.Event{Kind: report.ChangeMade, Object: change.Object, Message: release.LockFile + ": " + change.Detail})
	return nil
}

func (p *pin) change(ctx context.Context) (step.Change, release.Digests, error) {
	source := p.supplies.source
	change := lockChange(release.LockFile)
	more, err := p.publish(ctx, source, p.unlocked())
	if err != nil {
		return change, nil, err
	}
	digests := source.Locked.With(more)
	change.Detail = "digests of K3s " + source.Version + " as the release publishes them now; from here on no other files are taken"
	change.After = digests.Text()
	if len(source.Locked) > 0 {
		change.Action, change.Before = step.Update, source.Locked.Text()
	}
	return change, digests, nil
}

func lockChange(file string) step.Change {
	return step.Change{Layer: LayerPlatform, Object: "this workspace", Resource: "file " + file, Action: step.Create}
}

// wanted is one of a release's files, for an architecture.
type wanted struct{ arch, name string }

// downloads are the release's files that the lab's nodes need.
func (s *session) downloads() []wanted {
	var out []wanted
	for _, m := range s.lab.Nodes() {
		names := []string{release.BinaryName(m.Arch)}
		if slices.Contains(s.lab.K3s.Images, config.ImagesAirgap) {
			names = append(names, release.ImagesName(m.Arch))
		}
		for _, name := range names {
			if w := (wanted{m.Arch, name}); !slices.Contains(out, w) {
				out = append(out, w)
			}
		}
	}
	return out
}

// unlocked are the files that are downloaded and have no digest in the lock yet.
// A binary that is given on this computer is not the release's word.
func (s *session) unlocked() []wanted {
	source := s.supplies.source
	return slices.DeleteFunc(s.downloads(), func(w wanted) bool {
		return source.Locked[release.Key(source.Version, w.name)] != "" || source.Given() && w.name == release.BinaryName(w.arch)
	})
}

// publish asks the release for the digests of files.
func (s *session) publish(ctx context.Context, source *release.Source, files []wanted) (release.Digests, error) {
	out := release.Digests{}
	for _, w := range files {
		sum, err := source.Published(ctx, w.arch, w.name)
		if err != nil {
			return nil, err
		}
		out[release.Key(source.Version, w.name)] = sum
	}
	return out, nil
}
