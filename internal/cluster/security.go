package cluster

import (
	"context"
	"net"
	"os"
	"sync"
	"time"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
)

// Verdict is what a security check found.
type Verdict string

// The verdicts. Unknown is for what could not be looked at: it is neither good
// nor bad.
const (
	OK      Verdict = "ok"
	Bad     Verdict = "failed"
	Unknown Verdict = "not known"
)

// Finding is what a check found on one machine, or on the cluster.
type Finding struct {
	Object   string  `json:"object"`
	Verdict  Verdict `json:"verdict"`
	Evidence string  `json:"evidence"` // what was read, and for a failure what would be right
}

// SecurityCheck is one check with all it found.
type SecurityCheck struct {
	Name     string    `json:"name"`
	Verdict  Verdict   `json:"verdict"` // the worst of its findings
	Findings []Finding `json:"findings"`
}

// Inspected reaches the machines whose security is looked at.
type Inspected interface {
	// Dial connects from the machine itself.
	Dial(ctx context.Context, machine, network, address string) (net.Conn, error)
	// Output runs a command as root and returns what it wrote.
	Output(ctx context.Context, machine string, args ...string) ([]byte, error)
	// Facts asks the machine what it is.
	Facts(ctx context.Context, machine string, q converger.FactsRequest) (converger.Facts, error)
}

// Security looks at the real state of machines and cluster, not at settings.
type Security struct {
	Lab      *config.Lab
	Machines Inspected
	Client   *Client // nil: the API does not answer
	// Policies are compared with the cluster; nil: the workspace has none.
	Policies *Manifests
	// Kubeconfig is the administrator's, as kept on this computer.
	Kubeconfig []byte
	// Private are files of this computer that nobody else may read.
	Private []string
	Now     func() time.Time

	facts map[string]converger.Facts
}

// where says what a check looks at.
type where int

const (
	onNodes where = iota
	onServers
	onAgents
	onCluster // through the API, or from this computer
)

// check is one thing to look at. It returns a verdict and its evidence; machine
// is nil for the cluster.
type check struct {
	name  string
	where where
	look  func(ctx context.Context, s *Security, m *config.Machine) (Verdict, string)
}

// Look makes every check on everything it concerns, all at once. What does not
// answer in time is not known.
func (s *Security) Look(ctx context.Context) []SecurityCheck {
	s.readFacts(ctx)
	list := checks()
	out := make([]SecurityCheck, len(list))
	var wait sync.WaitGroup
	for i, c := range list {
		objects := s.objects(c.where)
		out[i] = SecurityCheck{Name: c.name, Findings: make([]Finding, len(objects))}
		for j, m := range objects {
			wait.Go(func() {
				f := &out[i].Findings[j]
				f.Object = "cluster"
				if m != nil {
					f.Object = m.Name
				}
				f.Verdict, f.Evidence = c.look(ctx, s, m)
			})
		}
	}
	wait.Wait()
	for i := range out {
		out[i].Verdict = worst(out[i].Findings)
	}
	return out
}

func (s *Security) objects(w where) []*config.Machine {
	switch w {
	case onServers:
		return s.Lab.Servers()
	case onAgents:
		return s.Lab.Agents()
	case onCluster:
		return []*config.Machine{nil}
	default:
		return s.Lab.Nodes()
	}
}

// worst is bad where one is, else unknown where one is.
func worst(findings []Finding) Verdict {
	verdict := OK
	for _, f := range findings {
		switch f.Verdict {
		case Bad:
			return Bad
		case Unknown:
			verdict = Unknown
		case OK:
		}
	}
	return verdict
}

// readFacts asks all machines at once; one that does not answer has none.
func (s *Security) readFacts(ctx context.Context) {
	s.facts = map[string]converger.Facts{}
	var lock sync.Mutex
	var wait sync.WaitGroup
	for _, m := range s.Lab.Nodes() {
		wait.Go(func() {
			facts, err := s.Machines.Facts(ctx, m.Name, factsForSecurity())
			if err != nil {
				return // the check of that name tells
			}
			lock.Lock()
			defer lock.Unlock()
			s.facts[m.Name] = facts
		})
	}
	wait.Wait()
}

// private is bad for every file of this computer that others may read.
func private(_ context.Context, s *Security, _ *config.Machine) (Verdict, string) {
	var open []string
	for _, path := range s.Private {
		info, err := os.Stat(path)
		if err != nil {
			continue // what is not there is read by nobody
		}
		if info.Mode().Perm()&0o077 != 0 {
			open = append(open, modeOf(path, uint32(info.Mode().Perm())))
		}
	}
	return none(open, "others may read ", "key and kubeconfig on this computer are readable by their owner only")
}
