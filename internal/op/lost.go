package op

import (
	"context"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/desired"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/step"
)

// remembering is what the cluster's API is asked about machines that were lost.
type remembering interface {
	forgetting
	// Address is the node's own, empty where it has none or is not there.
	Address(ctx context.Context, node string) (string, error)
}

// replaced reports whether the cluster still keeps the machine's name for one it
// has lost. K3s then refuses the new machine: it has not the old one's password,
// and as a server its member of the datastore has the same address.
//
// A machine that has been a node keeps its password outside K3s's data, so one
// whose data is gone, or whose disk was not mounted, is not taken for a new one.
// Where the API does not answer nothing is known to be kept.
func (c *converge) replaced(ctx context.Context, m *config.Machine, facts converger.Facts, b beginning) (remembering, error) {
	if !b.running || !c.lab.Manages(config.ManageK3s) || facts.Paths[desired.NodePasswordPath] || hasDatastore(facts) || facts.Units[desired.Unit(m)].Active == "active" {
		return nil, nil //nolint:nilnil // nobody to tell
	}
	api, err := c.api(ctx)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // what waits for the cluster says it
	}
	known, err := api.Knows(ctx, m.Name)
	if err != nil || !known {
		return nil, err
	}
	address, err := api.Address(ctx, m.Name)
	if err != nil {
		return nil, err
	}
	if address != "" && address != m.IP.String() {
		return nil, fault.New(fault.Invalid, m.Name, "kubectl delete node "+m.Name+", when that machine is gone; or give this one another name",
			"the cluster has a node of that name at %s, and this machine at %s is a new one", address, m.IP)
	}
	return api, nil
}

// forgetsFirst is what a plan says of a machine that replaces a lost one.
func forgetsFirst(m *config.Machine) step.Change {
	return step.Change{
		Layer: "platform", Object: m.Name, Resource: nodeID, Action: step.Delete,
		Detail: "of the machine that was lost; this one is new",
	}
}
