package op

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/k3lab/k3lab/internal/apps"
	"github.com/k3lab/k3lab/internal/cluster"
	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/desired"
)

// Status is the health of a lab's cluster at one moment.
type Status struct {
	cluster.Health
	Lab string `json:"lab"`
	URL string `json:"url"`
	K3s string `json:"k3s,omitempty"` // what the binary on a server says of itself
	// VIPProvider keeps the VIP, where there is one.
	VIPProvider config.VIPProvider `json:"vip_provider,omitempty"`
	Problems    []string           `json:"problems"`
	Notes       []string           `json:"notes,omitempty"`
	// Apps is empty where the workspace keeps none.
	Apps []apps.State `json:"apps,omitempty"`
}

// Summary is a healthy cluster in one phrase.
func (s *Status) Summary() string {
	ready := 0
	for i := range s.Members {
		if n := s.Members[i].Node; n != nil && n.Ready {
			ready++
		}
	}
	return fmt.Sprintf("%d of %d servers vote, %d of %d nodes ready", s.Voters, s.Servers, ready, len(s.Members))
}

// ReadStatus looks at everything at once. It needs no lock and changes nothing.
func ReadStatus(ctx context.Context, opts LabOptions) (_ *Status, err error) {
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
	w := s.watch(lookPatience)
	o := w.observer()
	if len(o.Kubeconfig) == 0 {
		// Without one the API cannot be asked; the health then says why.
		o.Kubeconfig, _ = s.fetch(ctx)
	}
	says := make(chan string, 1)
	go func() { says <- s.k3sVersion(ctx) }()
	applications := make(chan []apps.State, 1)
	var unasked error
	go func() {
		defer close(applications)
		var states []apps.State
		states, unasked = s.appStates(ctx)
		applications <- states
	}()
	st := s.status(o.Look(ctx), <-says)
	st.Apps = <-applications
	for _, a := range st.Apps {
		if a.Problem != "" {
			st.Problems = append(st.Problems, "app "+a.App+": "+a.Problem)
		}
	}
	if unasked != nil && len(st.Problems) == 0 {
		st.Problems = append(st.Problems, unasked.Error())
	}
	return st, nil
}

// AwaitHealth waits until the cluster is whole, or with a name until that member
// is. It keeps nothing and needs no lock.
func AwaitHealth(ctx context.Context, opts LabOptions, limit time.Duration, member string) (err error) {
	s, err := open(opts)
	if err != nil {
		return err
	}
	defer s.closeInto(&err)
	if err := s.checkNodes(); err != nil {
		return err
	}
	if member == "" {
		return s.watch(limit).await(ctx, opts.Reporter)
	}
	if _, err := s.nodes([]string{member}); err != nil {
		return err
	}
	return s.watch(limit).member(ctx, member)
}

// k3sVersion is what K3s on a server says of itself; empty when none answers.
func (s *session) k3sVersion(ctx context.Context) string {
	out, err := s.firstServer(ctx, func(ctx context.Context, server string) ([]byte, error) {
		return s.fleet.Output(ctx, server, "k3s", "--version")
	})
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimPrefix(line, "k3s version ")
}

func (s *session) status(h *cluster.Health, k3s string) *Status {
	w := s.watch(lookPatience)
	st := &Status{Health: *h, Lab: s.lab.Name, URL: desired.APIURL(s.lab), K3s: k3s, Problems: h.Problems()}
	if h.VIP != nil && s.lab.Manages(config.ManageHA) {
		st.VIPProvider = s.lab.Network.VIPProvider
		st.Notes = vipNotes(h.VIP)
	}
	if s.lab.K3s.CNI == "none" {
		st.Problems = nil
		for i := range h.Members {
			if m := &h.Members[i]; m.Problem() != "" && !w.accept(m) {
				st.Problems = append(st.Problems, m.Name+": "+m.Problem())
			}
		}
		st.Notes = append(st.Notes, "cni is none: nodes are ready once you install a network plugin")
	}
	return st
}
