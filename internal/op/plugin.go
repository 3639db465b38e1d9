package op

import (
	"context"

	"github.com/k3lab/k3lab/internal/tfprovider"
)

// IsPlugin reports whether terraform has started this process as its provider.
func IsPlugin() bool { return tfprovider.IsPlugin() }

// ServePlugin serves the Terraform provider until terraform ends it.
func ServePlugin(ctx context.Context, version string) error { return tfprovider.Serve(ctx, version) }
