package apps

import (
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/k3lab/k3lab/internal/step"
)

// unsettledWebhook reports whether nothing answered what checks an object.
func unsettledWebhook(err error) bool {
	return apierrors.IsInternalError(err) && strings.Contains(err.Error(), "failed calling webhook")
}

// deferUnchecked takes it for no refusal when nothing answers what checks an
// object, and what is needed by the object's release changes in this very plan.
func (e *Engine) deferUnchecked(found []comparison, errs []error) {
	changes := map[string]bool{}
	for i, r := range e.releases {
		changes[r.name] = len(found[i].changes) > 0
	}
	for i, r := range e.releases {
		if unsettledWebhook(errs[i]) && slices.ContainsFunc(r.needs, func(n string) bool { return changes[n] }) {
			ch := r.change("release "+key(r.namespace, r.name), step.Update)
			ch.Deferred = r.name + ": what checks its objects changes first"
			found[i], errs[i] = comparison{changes: []step.Change{ch}}, nil
		}
	}
}
