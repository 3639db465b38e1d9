package op

import (
	"context"
	"errors"
	"os"

	"github.com/k3lab/k3lab/internal/infra"
	"github.com/k3lab/k3lab/internal/step"
)

// DestroyOptions are the options of Destroy.
type DestroyOptions struct {
	LabOptions
	// Confirm is shown the lab's name and what will be removed.
	Confirm func(lab string, plan step.Plan) (bool, error)
}

// Destroy removes everything Up made on Proxmox, and what the workspace keeps of
// a cluster that is no more. Settings and secrets stay. It returns false when it
// was not confirmed.
func Destroy(ctx context.Context, opts DestroyOptions) (_ bool, err error) {
	s, err := open(opts.LabOptions)
	if err != nil {
		return false, err
	}
	defer s.closeInto(&err)
	if err := s.lock("destroy"); err != nil {
		return false, err
	}
	steps := step.Sequence{infra.Remove(s.infra)}
	plan, err := steps.Plan(ctx, opts.Reporter)
	if err != nil {
		return false, err
	}
	if ok, err := opts.Confirm(s.lab.Name, plan); err != nil || !ok {
		return false, err
	}
	if err := steps.Apply(ctx, opts.Reporter, plan); err != nil {
		return false, err
	}
	// The machines' host keys and the cluster's credentials end with them.
	for _, path := range []string{s.dir.Kubeconfig(), s.dir.KnownHosts()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return true, err
		}
	}
	return true, nil
}
