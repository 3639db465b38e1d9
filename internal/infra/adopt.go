package infra

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/hcl/v2/hclwrite"
	tfjson "github.com/hashicorp/terraform-json"
	"github.com/zclconf/go-cty/cty"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
)

// VMs finds through the Proxmox API what Terraform's state does not know of.
type VMs interface {
	// Find returns the VM of that ID behind an endpoint, and false when there is none.
	Find(ctx context.Context, endpoint string, vmid int) (VM, bool, error)
	// HasPool reports whether the endpoint has a pool of that name.
	HasPool(ctx context.Context, endpoint, pool string) (bool, error)
}

// VM is what is known of a VM in Proxmox.
type VM struct {
	Name       string
	Hypervisor string
	Pool       string
}

// adoptFile holds import blocks while a plan is made. It never outlives Plan.
const adoptFile = "adopt.k3lab.tf"

// found is an object that exists though the plan would create it.
type found struct{ address, id string }

// adopt looks whether what the plan would create is there already: a terraform
// that was killed leaves VMs its state does not know of, and a user may have
// made the pool. What is the lab's own is taken over by a second plan; a VM ID
// somebody else uses is a fault before anything is made.
func (t *Terraform) adopt(ctx context.Context, r report.Reporter, plan *tfjson.Plan) (*tfjson.Plan, error) {
	if t.opts.VMs == nil {
		return plan, nil
	}
	var all []found
	var faults []error
	for _, rc := range plan.ResourceChanges {
		if !rc.Change.Actions.Create() {
			continue
		}
		f, err := t.existing(ctx, rc)
		if err != nil {
			faults = append(faults, err)
		}
		if f != nil {
			all = append(all, *f)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	if len(all) == 0 {
		return plan, nil
	}
	file := filepath.Join(t.paths.root, adoptFile)
	if err := os.WriteFile(file, importBlocks(all), 0o644); err != nil {
		return nil, err
	}
	again, err := t.plan(ctx, r, false)
	if err = errors.Join(err, os.Remove(file)); err != nil {
		return nil, err
	}
	if again != nil {
		if err := t.names.replacedOnImport(again); err != nil {
			return nil, errors.Join(err, t.Close())
		}
	}
	return again, nil
}

// replacedOnImport refuses to take over and replace in one go, which the
// provider cannot do: an imported VM has no timeouts yet, so deleting it times
// out at once. OpenTofu would do it to templates, because there the creation of
// what they are made from counts as a change of it.
func (n naming) replacedOnImport(plan *tfjson.Plan) error {
	var refused []error
	for _, rc := range plan.ResourceChanges {
		if rc.Change.Importing == nil || !rc.Change.Actions.Replace() {
			continue
		}
		s := n.subjectOfChange(rc)
		refused = append(refused, fault.New(fault.Failed, s.String(),
			fmt.Sprintf("qm destroy %s --purge on %s, then the same command again; no machine needs it", text(at(rc.Change.Before, "vm_id")), text(at(rc.Change.Before, "node_name"))),
			"vm %s was left by an interrupted run", text(at(rc.Change.Before, "vm_id"))))
	}
	return errors.Join(refused...)
}

// existing returns what a creation would collide with, nil when there is
// nothing, and a fault when it is not the lab's own.
func (t *Terraform) existing(ctx context.Context, rc *tfjson.ResourceChange) (*found, error) {
	endpoint := t.names.endpointOf(rc.ModuleAddress)
	if endpoint == "" {
		return nil, nil //nolint:nilnil // the user's own resources are not looked for
	}
	pool := t.opts.Lab.Proxmox.Pool
	switch rc.Type {
	case typePool:
		has, err := t.opts.VMs.HasPool(ctx, endpoint, pool)
		if err != nil || !has {
			return nil, err
		}
		return &found{rc.Address, pool}, nil
	case typeVM:
		id, err := number(at(rc.Change.After, "vm_id"))
		if err != nil {
			return nil, nil //nolint:nilnil,nilerr // a VM ID that is not known yet belongs to nobody
		}
		name := fmt.Sprint(at(rc.Change.After, "name"))
		vm, has, err := t.opts.VMs.Find(ctx, endpoint, int(id))
		if err == nil && !has && rc.Name == adopted {
			err = fault.New(fault.Invalid, t.names.subjectOfChange(rc).String(), "correct its vmid in terraform/vars/nodes.yaml; without adopted: true k3lab makes the VM",
				"it is an adopted VM, and there is no VM %d", int(id))
		}
		if err != nil || !has {
			return nil, err
		}
		if rc.Name == adopted { // whatever it is called, and in whatever pool
			return &found{rc.Address, fmt.Sprintf("%s/%d", vm.Hypervisor, int(id))}, nil
		}
		if vm.Name != name || vm.Pool != pool {
			return nil, fault.New(fault.Invalid, t.names.subjectOfChange(rc).String(),
				"choose another vmid, or remove that VM in Proxmox",
				"VM ID %d is taken by VM %q on %s, which is not in pool %s under the name %q", int(id), vm.Name, vm.Hypervisor, pool, name)
		}
		return &found{rc.Address, fmt.Sprintf("%s/%d", vm.Hypervisor, int(id))}, nil
	}
	return nil, nil //nolint:nilnil // nothing else collides
}

func importBlocks(all []found) []byte {
	file := hclwrite.NewEmptyFile()
	for _, f := range all {
		block := file.Body().AppendNewBlock("import", nil).Body()
		block.SetAttributeRaw("to", raw("%s", f.address))
		block.SetAttributeValue("id", cty.StringVal(f.id))
	}
	return hclwrite.Format(file.Bytes())
}
