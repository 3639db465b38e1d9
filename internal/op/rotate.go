package op

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/k3lab/k3lab/internal/cluster"
	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/secrets"
	"github.com/k3lab/k3lab/internal/workspace"
)

// Where the cluster's token is kept. A new one is written down before the
// cluster is told of it, so that it is never lost; old ones are kept because a
// datastore snapshot can be restored only with the token it was taken under.
const (
	tokenKey       = "k3s_token"
	nextTokenKey   = "k3s_token_next"     //nolint:gosec // names, not tokens
	retiredTokens  = "k3s_tokens_retired" //nolint:gosec // the same
	rotateTokenCmd = "k3lab secrets rotate " + tokenKey
)

// errRotating says that a rotation of the token was begun and not ended.
var errRotating = errors.New("a rotation of the cluster's token was interrupted")

// RotateToken gives the cluster a new token and restarts K3s on every machine
// with it, servers one at a time. Every node has to be whole before, because one
// that is away would come back with the old token. Interrupted at any point it
// is run again and ends the same.
func RotateToken(ctx context.Context, opts UpOptions) (*UpResult, error) {
	if err := rotateToken(ctx, opts); err != nil {
		return nil, err
	}
	return Up(ctx, opts)
}

func rotateToken(ctx context.Context, opts UpOptions) (err error) {
	s, err := open(opts.LabOptions)
	if err != nil {
		return err
	}
	defer s.closeInto(&err)
	if err := s.checkNodes(); err != nil {
		return err
	}
	if !s.lab.Manages(config.ManageK3s) {
		return fault.New(fault.Invalid, "token", "add k3s to manage in ansible/group_vars/all.yaml",
			"a new token means new settings and a restart of every K3s, and k3s is not managed")
	}
	if err := s.lock("secrets rotate"); err != nil {
		return err
	}
	kubeconfig, err := s.fetch(ctx)
	if err != nil {
		return err
	}
	ca, err := cluster.AuthorityOf(kubeconfig)
	if err != nil {
		return err
	}
	supervisor := &cluster.Supervisor{Machines: onMachines{s.fleet}, CA: ca}
	next, err := s.secrets.Get(nextTokenKey)
	switch {
	case errors.Is(err, secrets.ErrNotFound):
		next, err = s.rotate(ctx, supervisor)
	case err == nil && !s.anyAccepts(ctx, supervisor, next.Reveal()):
		next, err = s.rotate(ctx, supervisor)
	}
	if err != nil {
		return err
	}
	opts.Reporter.Report(report.Event{Kind: report.ObjectState, Object: "cluster", Message: "has a new token", Done: true})
	return s.secrets.Update(
		secrets.Change{Path: []string{retiredTokens, time.Now().UTC().Format("2006-01-02T15-04-05Z")}, Value: secrets.NewValue(s.supplies.token)},
		secrets.Change{Path: []string{tokenKey}, Value: next},
		secrets.Change{Path: []string{nextTokenKey}},
	)
}

// rotate writes the new token down and tells the first server of it.
func (s *session) rotate(ctx context.Context, supervisor *cluster.Supervisor) (secrets.Value, error) {
	if err := s.watch(lookPatience).everyoneWhole(ctx); err != nil {
		return secrets.Value{}, err
	}
	next, err := s.secrets.Ensure(workspace.NewToken, nextTokenKey)
	if err != nil {
		return secrets.Value{}, err
	}
	server := s.lab.Servers()[0].Name
	if err := supervisor.RotateToken(ctx, server, s.supplies.token, next.Reveal()); err != nil {
		return secrets.Value{}, fault.New(fault.Failed, server, rotateTokenCmd, "%w", err)
	}
	return next, nil
}

// anyAccepts reports whether the cluster has been told of the token already.
// Only the server that was told, and those started since, know it.
func (s *session) anyAccepts(ctx context.Context, supervisor *cluster.Supervisor, token string) bool {
	servers := s.lab.Servers()
	known := make([]bool, len(servers))
	// One that does not answer does not count: the others are asked.
	_ = each(ctx, servers, func(i int, m *config.Machine) error {
		accepts, err := supervisor.Accepts(ctx, m.Name, token)
		known[i] = accepts
		return err
	})
	return slices.Contains(known, true)
}

// everyoneWhole fails where any node is not.
func (w *watch) everyoneWhole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	h := w.observer().Look(ctx)
	var open []string
	for i := range h.Members {
		if m := &h.Members[i]; m.Problem() != "" && !w.accept(m) {
			open = append(open, m.Name+" ("+m.Problem()+")")
		}
	}
	if len(open) > 0 {
		return fault.New(fault.Unhealthy, "token", "k3lab up, then "+rotateTokenCmd,
			"it is rotated only when every node is whole, and these are not: %s", strings.Join(open, ", "))
	}
	return nil
}

// checkToken refuses to go on in the middle of a rotation: a server may have
// the new token already, and one that is started with the old would fail.
func (s *session) checkToken() error {
	_, err := s.secrets.Get(nextTokenKey)
	switch {
	case err == nil:
		return fault.New(fault.Failed, "token", rotateTokenCmd, "%w", errRotating)
	case errors.Is(err, secrets.ErrNotFound):
		return nil
	}
	return err
}
