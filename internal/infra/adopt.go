package infra

import (
	"context"

	tfjson "github.com/hashicorp/terraform-json"

	"github.com/k3lab/k3lab/internal/report"
)

// VMs finds VMs through the Proxmox API.
type VMs interface {
	// Find returns the VM of that ID behind an endpoint, and false when there is none.
	Find(ctx context.Context, endpoint string, vmid int) (VM, bool, error)
}

// VM is what is known of a VM in Proxmox.
type VM struct {
	Name       string
	Hypervisor string
	Pool       string
}

func (t *Terraform) adopt(_ context.Context, _ report.Reporter, plan *tfjson.Plan) (*tfjson.Plan, error) {
	return plan, nil
}
