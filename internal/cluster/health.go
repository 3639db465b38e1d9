package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/k3lab/k3lab/internal/config"
)

// Member is one node of the lab as seen from all sides: its machine, systemd,
// its datastore member and the API.
type Member struct {
	Name        string      `json:"name"`
	Role        config.Role `json:"role"`
	Address     string      `json:"address"`
	Reachable   bool        `json:"reachable"`
	Unreachable string      `json:"unreachable,omitempty"` // why
	Unit        UnitState   `json:"unit"`
	Datastore   *Datastore  `json:"datastore,omitempty"` // servers only
	Node        *Node       `json:"node,omitempty"`      // nil: the API does not know it, or does not answer
	HasVIP      bool        `json:"has_vip,omitempty"`
}

// Health is the state of the whole cluster at one moment.
type Health struct {
	Members []Member `json:"members"` // servers, then agents, in file order
	API     string   `json:"api"`     // "ok", or why it does not answer
	Voters  int      `json:"voters"`  // servers whose member votes and has a leader
	Servers int      `json:"servers"`
	VIP     *VIP     `json:"vip,omitempty"` // nil: there is none
}

// Quorum reports whether the datastore can be written.
func (h *Health) Quorum() bool { return h.Voters > h.Servers/2 }

// Problems says what keeps the cluster from being whole, one line each; none
// when every server is a started voter and every node is ready.
func (h *Health) Problems() []string {
	var out []string
	if !h.Quorum() {
		out = append(out, fmt.Sprintf("datastore: quorum lost: %d of %d servers vote, %d are needed", h.Voters, h.Servers, h.Servers/2+1))
	}
	if h.API != "ok" {
		out = append(out, "api: "+firstLine(h.API))
	} else if h.VIP != nil && h.VIP.Problem != "" {
		out = append(out, h.VIP.String())
	}
	for i := range h.Members {
		if p := h.Members[i].Problem(); p != "" && (h.API == "ok" || !strings.HasPrefix(p, "no node")) {
			out = append(out, h.Members[i].Name+": "+p)
		}
	}
	return out
}

// serverRoles are what K3s labels the node of a server with, the second once
// its datastore member votes.
var serverRoles = []string{"control-plane", "etcd"}

// Problem says what keeps the member from being whole; empty when nothing does.
func (m *Member) Problem() string {
	switch {
	case !m.Reachable:
		return "does not answer SSH: " + m.Unreachable
	case m.Unit.Active != "active":
		return "K3s is " + m.Unit.String()
	case m.Datastore != nil && !m.Datastore.Answers:
		return "its datastore member does not answer"
	case m.Datastore != nil && !m.Datastore.HasLeader:
		return "its datastore member has no leader"
	case m.Datastore != nil && m.Datastore.Learner:
		return "its datastore member is still a learner"
	case m.Node == nil:
		return "no node of that name in the cluster yet"
	case !m.Node.Ready:
		return "node is not ready: " + m.Node.Reason
	case m.Role == config.RoleServer && !slices.Equal(m.Node.Roles, serverRoles):
		return "its node has not the roles of a server yet"
	}
	return ""
}

func (u UnitState) String() string {
	s := u.Active
	if u.Sub != "" && u.Sub != u.Active {
		s += " (" + u.Sub + ")"
	}
	return s
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// Observer looks at a cluster. The zero Kubeconfig is fetched from a server when
// one has it.
type Observer struct {
	Lab        *config.Lab
	Machines   Machines
	Unit       func(*config.Machine) string // the unit that runs K3s on the machine
	URLs       []string                     // where the API may answer; with a VIP that first
	Kubeconfig []byte
	VIP        netip.Addr // zero: there is none
	VIPApp     string     // label of the pods that keep it; empty where none do
}

// Look reads everything at once and never fails: what cannot be read is part of
// the result.
func (o *Observer) Look(ctx context.Context) *Health {
	nodes := o.Lab.Nodes()
	h := &Health{Members: make([]Member, len(nodes)), API: "ok", Servers: len(o.Lab.Servers())}
	var wait sync.WaitGroup
	for i, m := range nodes {
		wait.Go(func() { h.Members[i] = o.member(ctx, m) })
	}
	var known []Node
	wait.Go(func() {
		var err error
		if len(o.Kubeconfig) == 0 {
			h.API = "no kubeconfig yet"
			return
		}
		if known, err = Nodes(ctx, o.Kubeconfig, o.URLs); err != nil {
			h.API = err.Error()
		}
	})
	wait.Go(func() { h.VIP = o.vip(ctx) })
	wait.Wait()
	for i := range h.Members {
		m := &h.Members[i]
		if m.HasVIP {
			h.VIP.Holders = append(h.VIP.Holders, m.Name)
		}
		if m.Datastore != nil && m.Datastore.Voter() {
			h.Voters++
		}
		for _, n := range known {
			if n.Name == m.Name {
				m.Node = &n
			}
		}
	}
	return h
}

func (o *Observer) member(ctx context.Context, m *config.Machine) Member {
	out := Member{Name: m.Name, Role: m.Role, Address: m.IP.String()}
	unit, err := o.Machines.Unit(ctx, m.Name, o.Unit(m))
	if err != nil {
		out.Unreachable = firstLine(err.Error())
		if m.Role == config.RoleServer {
			out.Datastore = &Datastore{}
		}
		return out
	}
	out.Reachable, out.Unit = true, unit
	if m.Role == config.RoleServer {
		d, err := readDatastore(ctx, o.Machines, m.Name)
		if err != nil {
			out.Unreachable = firstLine(err.Error())
		}
		out.Datastore = &d
		if o.VIP.IsValid() {
			// What cannot be read is not said to be there.
			list, _ := o.Machines.ReadFile(ctx, m.Name, localAddresses)
			out.HasVIP = hasAddress(string(list), o.VIP)
		}
	}
	return out
}
