package op

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/k3lab/k3lab/internal/cluster"
	"github.com/k3lab/k3lab/internal/converger"
)

// Security is every security check with what it found.
type Security struct {
	Lab    string                  `json:"lab"`
	Failed int                     `json:"failed"`
	Checks []cluster.SecurityCheck `json:"checks"`
}

// ReadSecurity makes every check on the real state of machines and cluster, all at
// once. It changes nothing.
func ReadSecurity(ctx context.Context, opts LabOptions) (_ *Security, err error) {
	s, err := open(opts)
	if err != nil {
		return nil, err
	}
	defer s.closeInto(&err)
	if err := s.checkNodes(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	manifests, err := cluster.ReadManifests(s.dir.Path(policiesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	look := cluster.Security{
		Lab: s.lab, Machines: inspected{onMachines{s.fleet}}, Policies: manifests, Now: time.Now,
		Kubeconfig: s.watch(0).kept(),
		Private:    []string{s.dir.Kubeconfig(), s.keyFile()},
	}
	// Without an answer the checks that need the API say that they know nothing.
	look.Client, _ = s.client(ctx)
	result := &Security{Lab: s.lab.Name, Checks: look.Look(ctx)}
	for _, c := range result.Checks {
		if c.Verdict == cluster.Bad {
			result.Failed++
		}
	}
	return result, nil
}

// inspected gives up soon on a machine that is off.
type inspected struct{ onMachines }

func (i inspected) Facts(ctx context.Context, machine string, q converger.FactsRequest) (converger.Facts, error) {
	if err := reach(ctx, i.Fleet, machine); err != nil {
		return converger.Facts{}, err
	}
	return i.Fleet.Facts(ctx, machine, q)
}
