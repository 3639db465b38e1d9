package apps

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/release/common"

	"github.com/k3lab/k3lab/internal/step"
)

// giveUp puts a release back as it was at its last good revision. A first one,
// of which there is none, is removed again, unless data would go with it.
func (e *Engine) giveUp(ctx context.Context, w step.Writer, r *release, cause error) error {
	if ctx.Err() != nil {
		return cause // nothing is written any more; the next run goes on from here
	}
	history, err := e.history(ctx, r.name, r.namespace)
	if err != nil || len(history) == 0 {
		return errors.Join(cause, err)
	}
	last := history[0]
	if last.Info.Status != common.StatusFailed {
		if err := e.fail(ctx, last, "not healthy"); err != nil {
			return errors.Join(cause, err)
		}
	}
	if i := slices.IndexFunc(history, good); i >= 0 {
		to := history[i]
		if err = e.rollback(ctx, r.name, r.namespace, to.Version, r.app.timeout()); err == nil {
			err = e.settle(ctx, w, r, manifest(to))
		}
		if err == nil {
			return fmt.Errorf("%w\n  rolled back to revision %d, which is healthy", cause, to.Version)
		}
		return errors.Join(cause, fmt.Errorf("rollback to revision %d: %w", to.Version, err))
	}
	v, err := e.look(ctx)
	if err != nil {
		return errors.Join(cause, err)
	}
	lost, err := e.losses(ctx, v, r.namespace, manifest(last))
	switch {
	case err != nil:
		return errors.Join(cause, err)
	case len(lost) > 0:
		return fmt.Errorf("%w\n  left as it is: with it would go %s", cause, strings.Join(lost, ", "))
	}
	if err := e.uninstall(ctx, r.name, r.namespace); err != nil {
		return errors.Join(cause, err)
	}
	return fmt.Errorf("%w\n  removed again: no revision of it has been healthy", cause)
}
