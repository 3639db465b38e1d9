package infra

import (
	"context"

	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// Provision is the step that brings the machines into being.
func Provision(t *Terraform) step.Step { return provision{t} }

type provision struct{ t *Terraform }

func (provision) Title() string { return "provision machines" }

func (p provision) Plan(ctx context.Context, r report.Reporter) ([]step.Change, error) {
	return p.t.Plan(ctx, r)
}

func (p provision) Apply(ctx context.Context, w step.Writer, _ []step.Change) error {
	return p.t.Apply(ctx, w)
}

// Remove is the step that removes everything Provision made.
func Remove(t *Terraform) step.Step { return remove{t} }

type remove struct{ t *Terraform }

func (remove) Title() string { return "remove machines" }

func (p remove) Plan(ctx context.Context, r report.Reporter) ([]step.Change, error) {
	return p.t.PlanDestroy(ctx, r)
}

func (p remove) Apply(ctx context.Context, w step.Writer, _ []step.Change) error {
	return p.t.Destroy(ctx, w)
}
