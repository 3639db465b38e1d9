package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/kubectl/pkg/drain"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// evictAgain is the time between two attempts to evict a pod that a disruption
// budget keeps.
const evictAgain = time.Second

// DrainOptions say what may be lost with a node's pods, and how long they have.
type DrainOptions struct {
	Timeout time.Duration
	// KeepEmptyDir refuses to evict a pod that has an emptyDir volume, whose
	// content goes with it.
	KeepEmptyDir bool
	// DeleteUnmanaged evicts also pods that no controller would make again.
	DeleteUnmanaged bool
}

// Drain evicts the pods of a node, those of daemon sets and static ones excepted,
// and waits until they are gone. Disruption budgets are respected: what they keep
// longer than the timeout is an error that names them.
func (c *Client) Drain(ctx context.Context, w step.Writer, node string, o DrainOptions) error {
	helper := c.drainer(ctx, w, node, o)
	pods, err := podsToEvict(helper, node)
	if err != nil {
		return err
	}
	if err := evictable(node, pods, o); err != nil {
		return err
	}
	err = helper.DeleteOrEvictPods(pods)
	if err == nil || ctx.Err() != nil {
		return cmp.Or(ctx.Err(), err)
	}
	left, listErr := podsToEvict(helper, node)
	if listErr != nil || len(left) == 0 {
		return fault.New(fault.Failed, node, "", "not drained: %w", errors.Join(err, listErr))
	}
	why, hint := c.kept(ctx, left)
	return fault.New(fault.Failed, node, hint, "not drained within %s: %s", o.Timeout, why)
}

func (c *Client) drainer(ctx context.Context, w step.Writer, node string, o DrainOptions) *drain.Helper {
	return &drain.Helper{
		Ctx: ctx, Client: c.Core, Timeout: o.Timeout, EvictErrorRetryDelay: evictAgain,
		GracePeriodSeconds: -1, // each pod's own
		// What may be lost was looked at before, in words of ours.
		IgnoreAllDaemonSets: true, Force: true, DeleteEmptyDirData: true,
		Out: io.Discard, ErrOut: io.Discard,
		OnPodDeletionOrEvictionFinished: func(pod *corev1.Pod, _ bool, err error) {
			if err == nil {
				w.Report(report.Event{Kind: report.ChangeMade, Object: node, Message: "evict pod " + pod.Namespace + "/" + pod.Name})
			}
		},
	}
}

func podsToEvict(helper *drain.Helper, node string) ([]corev1.Pod, error) {
	list, errs := helper.GetPodsForDeletion(node)
	if len(errs) > 0 {
		return nil, fmt.Errorf("%s: %w", node, errors.Join(errs...))
	}
	return list.Pods(), nil
}

// evictable refuses what would lose something that was not given up.
func evictable(node string, pods []corev1.Pod, o DrainOptions) error {
	var alone, local []string
	for i := range pods {
		p := &pods[i]
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		name := p.Namespace + "/" + p.Name
		if metav1.GetControllerOf(p) == nil && !o.DeleteUnmanaged {
			alone = append(alone, name)
		}
		if o.KeepEmptyDir && slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.EmptyDir != nil }) {
			local = append(local, name)
		}
	}
	switch {
	case alone != nil:
		return fault.New(fault.Failed, node, "delete them, or --delete-unmanaged",
			"not drained: no controller would make these pods again: %s", strings.Join(alone, ", "))
	case local != nil:
		return fault.New(fault.Failed, node, "delete them, or do without --keep-emptydir",
			"not drained: the content of an emptyDir would go with these pods: %s", strings.Join(local, ", "))
	}
	return nil
}

// kept says of pods that are still there why, and what to do.
func (c *Client) kept(ctx context.Context, pods []corev1.Pod) (why, hint string) {
	var reasons []string
	for i := range pods {
		p := &pods[i]
		name := p.Namespace + "/" + p.Name
		budget := c.budgetOf(ctx, p)
		switch {
		case !p.DeletionTimestamp.IsZero():
			reasons = append(reasons, name+" was told to end and has not")
			hint = cmp.Or(hint, "kubectl -n "+p.Namespace+" describe pod "+p.Name)
		case budget != nil:
			reasons = append(reasons, fmt.Sprintf("%s is kept by the disruption budget %s/%s, which wants %d of its pods healthy, and %d are",
				name, budget.Namespace, budget.Name, budget.Status.DesiredHealthy, budget.Status.CurrentHealthy))
			hint = cmp.Or(hint, fmt.Sprintf("more replicas, or a budget that lets one go: kubectl -n %s get pdb %s", budget.Namespace, budget.Name))
		default:
			reasons = append(reasons, name+" is still there")
		}
	}
	return strings.Join(reasons, "; "), hint
}

// budgetOf is the disruption budget that lets no pod like this one go now, or nil.
func (c *Client) budgetOf(ctx context.Context, pod *corev1.Pod) *policyv1.PodDisruptionBudget {
	budgets, err := c.Core.PolicyV1().PodDisruptionBudgets(pod.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil // that the pod is still there is said all the same
	}
	for i := range budgets.Items {
		b := &budgets.Items[i]
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err == nil && b.Status.DisruptionsAllowed < 1 && selector.Matches(labels.Set(pod.Labels)) {
			return b
		}
	}
	return nil
}
