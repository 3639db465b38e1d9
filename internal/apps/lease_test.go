package apps

import (
	"context"
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/kube"
)

// TestLease keeps two operators apart on the real API.
func TestLease(t *testing.T) {
	if api.skip != "" {
		t.Skip(api.skip)
	}
	ctx := t.Context()
	mine := kube.Lease{Name: "k3lab-test", Holder: "anna", Lifetime: 3 * time.Second}
	other := kube.Lease{Name: "k3lab-test", Holder: "ben", Lifetime: 3 * time.Second}
	forbidden := func(context.Context) error { t.Error("two at once"); return nil }
	err := mine.Hold(ctx, api.client, func(context.Context) error {
		err := other.Hold(ctx, api.client, forbidden)
		if fault.KindOf(err) != fault.Locked {
			t.Errorf("%v, want it locked", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	broken := errors.New("broken")
	if err := other.Hold(ctx, api.client, func(context.Context) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("%v, want what the work says", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("a lease that was given back took %s", took)
	}
	// One that is taken away ends the work.
	leases := api.client.Core.CoordinationV1().Leases(metav1.NamespaceSystem)
	err = mine.Hold(ctx, api.client, func(ctx context.Context) error {
		there, err := leases.Get(ctx, mine.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		thief := "thief"
		there.Spec.HolderIdentity = &thief
		if _, err := leases.Update(ctx, there, metav1.UpdateOptions{}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, kube.ErrLeaseLost) || fault.KindOf(err) != fault.Locked {
		t.Errorf("%v, want the lease lost", err)
	}
	// The thief says nothing more: after the lifetime it is free.
	began = time.Now()
	if err := other.Hold(ctx, api.client, func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < 3*time.Second || took > 8*time.Second {
		t.Errorf("the lease of a silent holder was taken after %s, want its lifetime", took)
	}
}
