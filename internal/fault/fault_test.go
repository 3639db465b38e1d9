package fault_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/k3lab/k3lab/internal/fault"
)

func TestKindOf(t *testing.T) {
	unreachable := fault.New(fault.Unreachable, "server-1", "", "no route")
	tests := map[string]struct {
		err  error
		want fault.Kind
	}{
		"nil":                        {nil, 0},
		"no fault":                   {errors.New("x"), fault.Failed},
		"cancelled":                  {fmt.Errorf("wait: %w", context.Canceled), fault.Interrupted},
		"a fault":                    {unreachable, fault.Unreachable},
		"wrapped":                    {fmt.Errorf("join: %w", unreachable), fault.Unreachable},
		"the innermost fault wins":   {fault.New(fault.Unhealthy, "cluster", "", "broken: %w", unreachable), fault.Unreachable},
		"first of joined with fault": {errors.Join(errors.New("x"), unreachable, fault.New(fault.Locked, "", "", "y")), fault.Unreachable},
		"fault beats cancellation":   {errors.Join(context.Canceled, unreachable), fault.Unreachable},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := fault.KindOf(tt.err); got != tt.want {
				t.Errorf("KindOf(%v) = %d, want %d", tt.err, got, tt.want)
			}
		})
	}
}

func TestErrorText(t *testing.T) {
	tests := map[string]struct {
		err  error
		want string
	}{
		"object, cause, hint": {
			fault.New(fault.Unhealthy, "server-2", "k3lab status server-2", "api not ready after %s", "5m"),
			"server-2: api not ready after 5m (try: k3lab status server-2)",
		},
		"cause alone": {fault.New(fault.Failed, "", "", "x"), "x"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.err.Error(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
