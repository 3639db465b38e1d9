package kube

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	coordv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typed "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/k3lab/k3lab/internal/fault"
)

// Lease keeps two operators apart who work on one cluster from two computers.
type Lease struct {
	Name   string // of the Lease object in kube-system
	Holder string // who works, for the other one to read
	// Lifetime is after which time of silence a holder counts as gone; renewed
	// three times as often. Clocks of different computers are never compared.
	Lifetime time.Duration
}

// ErrLeaseLost says that somebody else holds the lease, or nobody could be asked
// for too long; what was done under it has been told to end.
var ErrLeaseLost = errors.New("the lease in the cluster was lost")

// Hold takes the lease and runs work under a context that ends when the lease is
// lost. One that somebody holds who is alive is fault.Locked; one whose holder has
// gone without a word is taken after its lifetime.
func (l Lease) Hold(ctx context.Context, c *Client, work func(context.Context) error) (err error) {
	leases := c.Core.CoordinationV1().Leases(metav1.NamespaceSystem)
	mine := l.Holder + " " + rand.Text()[:8] // one operator may try twice
	held, err := l.acquire(ctx, leases, mine)
	if err != nil {
		return err
	}
	inner, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		held = l.renew(inner, cancel, leases, held)
	}()
	defer func() {
		cancel(nil)
		<-ended
		lost := errors.Is(context.Cause(inner), ErrLeaseLost)
		if lost {
			err = fault.New(fault.Locked, l.Name, "run it again", "%w", errors.Join(ErrLeaseLost, err))
			return
		}
		// Given back also when told to stop: the next one need not wait then.
		last, done := context.WithTimeout(context.WithoutCancel(ctx), AnswerPatience)
		defer done()
		held.Spec.HolderIdentity, held.Spec.RenewTime = nil, nil
		if _, back := leases.Update(last, held, metav1.UpdateOptions{}); back != nil && err == nil && !apierrors.IsConflict(back) {
			err = fmt.Errorf("lease %s: %w", l.Name, back)
		}
	}()
	return work(inner)
}

func (l Lease) acquire(ctx context.Context, leases typed.LeaseInterface, mine string) (*coordv1.Lease, error) {
	tick := time.NewTicker(l.Lifetime / 6)
	defer tick.Stop()
	seen, since := "", time.Now()
	for {
		there, err := leases.Get(ctx, l.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			there, err = leases.Create(ctx, l.taken(&coordv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: l.Name}}, mine), metav1.CreateOptions{})
			if err == nil || !apierrors.IsAlreadyExists(err) {
				return there, l.named(err)
			}
			continue
		case err != nil:
			return nil, l.named(err)
		}
		holder := there.Spec.HolderIdentity
		switch {
		case holder == nil || *holder == "" || (seen == there.ResourceVersion && time.Since(since) > l.Lifetime):
			there, err = leases.Update(ctx, l.taken(there, mine), metav1.UpdateOptions{})
			if err == nil || !apierrors.IsConflict(err) {
				return there, l.named(err)
			}
			continue
		case seen == "":
			seen, since = there.ResourceVersion, time.Now()
		case seen != there.ResourceVersion: // it was renewed while we looked
			return nil, fault.New(fault.Locked, l.Name, "wait until it is done", "%s is at work on this cluster", *holder)
		}
		select {
		case <-ctx.Done():
			return nil, l.named(ctx.Err())
		case <-tick.C:
		}
	}
}

// taken is the lease as somebody's.
func (l Lease) taken(o *coordv1.Lease, by string) *coordv1.Lease {
	o = o.DeepCopy()
	now, seconds := metav1.NowMicro(), int32(l.Lifetime/time.Second)
	o.Spec = coordv1.LeaseSpec{HolderIdentity: &by, LeaseDurationSeconds: &seconds, AcquireTime: &now, RenewTime: &now}
	return o
}

// renew keeps the lease until ctx ends, and ends ctx when it cannot.
func (l Lease) renew(ctx context.Context, cancel context.CancelCauseFunc, leases typed.LeaseInterface, held *coordv1.Lease) *coordv1.Lease {
	tick := time.NewTicker(l.Lifetime / 3)
	defer tick.Stop()
	good := time.Now()
	for {
		select {
		case <-ctx.Done():
			return held
		case <-tick.C:
		}
		now, next := metav1.NowMicro(), held.DeepCopy()
		next.Spec.RenewTime = &now
		limited, done := context.WithTimeout(ctx, l.Lifetime/3)
		renewed, err := leases.Update(limited, next, metav1.UpdateOptions{})
		done()
		switch {
		case err == nil:
			held, good = renewed, time.Now()
		case ctx.Err() != nil:
			return held
		case apierrors.IsConflict(err), apierrors.IsNotFound(err), time.Since(good) > l.Lifetime*2/3:
			cancel(ErrLeaseLost)
			return held
		}
	}
}

func (l Lease) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("lease %s: %w", l.Name, err)
}
