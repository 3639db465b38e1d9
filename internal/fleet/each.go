package fleet

import (
	"context"
	"errors"
	"sync"
)

// Each runs f for all machines, or whatever stands for them, at once and to its
// end for every one of them, so that one machine's failure leaves the others as
// they should be. Errors are joined in the order of the machines.
func Each[T any](ctx context.Context, machines []T, f func(ctx context.Context, machine T) error) error {
	errs := make([]error, len(machines))
	var wait sync.WaitGroup
	for i, machine := range machines {
		wait.Go(func() { errs[i] = f(ctx, machine) })
	}
	wait.Wait()
	return errors.Join(errs...)
}
