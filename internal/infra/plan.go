package infra

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/terraform-exec/tfexec"
	tfjson "github.com/hashicorp/terraform-json"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// Plan returns what has to change so that Proxmox carries the machines the
// settings describe. Nothing is changed; the plan is kept for Apply.
func (t *Terraform) Plan(ctx context.Context, r report.Reporter) ([]step.Change, error) {
	if err := t.ready(ctx); err != nil {
		return nil, err
	}
	plan, err := t.plan(ctx, r, false)
	if err != nil || plan == nil {
		return nil, err
	}
	if plan, err = t.adopt(ctx, r, plan); err != nil || plan == nil {
		return nil, err
	}
	if err := t.names.guard(plan); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t.names.changes(plan), nil
}

// PlanDestroy returns what Destroy would remove: everything Terraform made.
func (t *Terraform) PlanDestroy(ctx context.Context, r report.Reporter) ([]step.Change, error) {
	if err := t.ready(ctx); err != nil {
		return nil, err
	}
	plan, err := t.plan(ctx, r, true)
	if err != nil || plan == nil {
		return nil, err
	}
	return t.names.changes(plan), nil
}

// ready sees to it that terraform can plan, and that it will find the APIs.
func (t *Terraform) ready(ctx context.Context) error {
	err := os.Remove(filepath.Join(t.paths.root, adoptFile)) // what a killed run left
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := t.prepare(ctx); err != nil {
		return err
	}
	return t.checkEndpoints(ctx)
}

// plan runs terraform plan and keeps its file. It returns nil when nothing has
// to change, which costs one run of terraform less.
func (t *Terraform) plan(ctx context.Context, r report.Reporter, destroy bool) (*tfjson.Plan, error) {
	if err := t.Close(); err != nil { // what a killed run left
		return nil, err
	}
	tokens, err := json.Marshal(map[string]any{tokensVariable: t.opts.Tokens})
	if err != nil {
		return nil, err
	}
	variables, err := t.secretFile("tokens.tfvars.json", tokens)
	if err != nil {
		return nil, err
	}
	defer os.Remove(variables)
	out := filepath.Join(t.paths.run, "plan")
	s := &stream{names: t.names, report: r}
	changed, err := t.tf.PlanJSON(ctx, s, tfexec.Out(out), tfexec.VarFile(variables),
		tfexec.Destroy(destroy), tfexec.Parallelism(t.opts.Parallelism), tfexec.LockTimeout("0s"))
	t.tf.SetStdout(io.Discard)
	if stop := interrupted(ctx, "terraform plan"); stop != nil {
		return nil, errors.Join(stop, t.Close())
	}
	if err != nil {
		return nil, errors.Join(t.explain("terraform plan", s.diagnostics, err), t.Close())
	}
	if !changed {
		return nil, t.Close()
	}
	plan, err := t.tf.ShowPlanFile(ctx, out)
	if stop := interrupted(ctx, "terraform show"); stop != nil {
		return nil, errors.Join(stop, t.Close())
	}
	if err != nil {
		return nil, errors.Join(t.explain("terraform show", nil, err), t.Close())
	}
	t.saved = &savedPlan{file: out, destroy: destroy}
	return plan, nil
}

// Apply makes exactly the changes the last Plan returned, from the plan it
// saved. When the state has changed since, nothing is made.
func (t *Terraform) Apply(ctx context.Context, w step.Writer) error { return t.apply(ctx, w, false) }

// Destroy removes exactly what the last PlanDestroy returned.
func (t *Terraform) Destroy(ctx context.Context, w step.Writer) error { return t.apply(ctx, w, true) }

func (t *Terraform) apply(ctx context.Context, w step.Writer, destroy bool) (err error) {
	if t.saved == nil || t.saved.destroy != destroy {
		return fault.New(fault.Failed, "terraform", "k3lab plan", "there is no plan to apply")
	}
	if err := t.backup(ctx, w); err != nil {
		return err
	}
	file := t.saved.file
	defer func() { err = errors.Join(err, t.Close()) }()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-ctx.Done():
			w.Report(report.Event{Kind: report.Notice, Object: "terraform",
				Message: "stopping: what has begun is finished first, for at most " + t.opts.Grace.String()})
		case <-done:
		}
	}()
	s := &stream{names: t.names, report: w}
	err = t.tf.ApplyJSON(ctx, s, tfexec.DirOrPlan(file), tfexec.Parallelism(t.opts.Parallelism), tfexec.LockTimeout("0s"))
	t.tf.SetStdout(io.Discard)
	if stop := interrupted(ctx, "terraform apply"); stop != nil {
		return stop
	}
	if err != nil {
		return t.explain("terraform apply", s.diagnostics, err)
	}
	return nil
}
