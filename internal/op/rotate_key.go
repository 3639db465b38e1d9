package op

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/desired"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/sshkey"
	"github.com/k3lab/k3lab/internal/step"
)

const rotateKeyCmd = "k3lab secrets rotate " + sshkey.SecretName

// RotateKey gives the machines a new key to log in with. Every node is told of
// it, and let in a new connection with it, before it is used; then Up takes the
// old key away. Until all have it, nothing but an added key has changed.
// Interrupted at any point it is run again and ends the same.
func RotateKey(ctx context.Context, opts UpOptions) (*UpResult, error) {
	if err := rotateKey(ctx, opts); err != nil {
		return nil, err
	}
	return Up(ctx, opts)
}

func rotateKey(ctx context.Context, opts UpOptions) (err error) {
	s, err := open(opts.LabOptions)
	if err != nil {
		return err
	}
	defer s.closeInto(&err)
	pair := s.keyPair()
	if pair.Own != "" {
		return fault.New(fault.Invalid, "access.key_file in ansible/group_vars/all.yaml",
			"add the new key to access.public_keys, k3lab up, name it as access.key_file, and take the old one out",
			"it names a key of your own, which k3lab does not change")
	}
	if err := s.lock("secrets rotate"); err != nil {
		return err
	}
	file, err := pair.Next()
	if err != nil {
		return err
	}
	newKey := step.Sequence{&giveKey{session: s, file: file}}
	plan, err := newKey.Plan(ctx, opts.Reporter)
	if err != nil {
		return err
	}
	if err := newKey.Apply(ctx, opts.Reporter, plan); err != nil {
		return err
	}
	if left := s.leftAlone(); len(left) > 0 {
		opts.Reporter.Report(report.Event{Kind: report.Warning, Object: strings.Join(left, ", "),
			Message: "has role none and is left alone: it knows the old key only, which k3lab secrets list names under ssh_private_keys_retired"})
	}
	if err := pair.Promote(time.Now()); err != nil {
		return err
	}
	opts.Reporter.Report(report.Event{Kind: report.ObjectState, Object: "machines", Message: "have a new key to log in with", Done: true})
	return nil
}

// leftAlone are the machines that are made and then left alone.
func (s *session) leftAlone() []string {
	var names []string
	for _, m := range s.lab.Machines {
		if m.Enabled && m.Role == config.RoleNone {
			names = append(names, m.Name)
		}
	}
	return names
}

// giveKey is the step that has all machines accept the next key beside the one
// there is.
type giveKey struct {
	*session
	file string // the next private key
}

func (g *giveKey) Title() string { return "The next SSH key" }

// Plan needs every machine: one that is away would know only the old key when it
// comes back.
func (g *giveKey) Plan(ctx context.Context, _ report.Reporter) ([]step.Change, error) {
	nodes := g.lab.Nodes()
	keys, err := g.authorized()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	changes := make([][]step.Change, len(nodes))
	err = each(ctx, nodes, func(i int, m *config.Machine) error {
		found, err := g.fleet.Plan(ctx, m.Name, g.request(m, keys))
		changes[i] = asChanges(m.Name, found)
		return err
	})
	return slices.Concat(changes...), err
}

func (g *giveKey) request(m *config.Machine, keys sshkey.Keys) converger.Request {
	return converger.Request{State: desired.LogIn(g.lab, m, desired.Inputs{AuthorizedKeys: keys.Authorized, RetiredKeys: keys.Retired})}
}

func (g *giveKey) Apply(ctx context.Context, w step.Writer, _ []step.Change) error {
	keys, err := g.authorized()
	if err != nil {
		return err
	}
	return each(ctx, g.lab.Nodes(), func(_ int, m *config.Machine) error {
		_, err := g.fleet.Apply(ctx, w, m.Name, g.request(m, keys))
		return err
	})
}

// Verified says that logging in with the next key has yet to be tried.
func (g *giveKey) Verified() bool { return false }

// Verify logs in to every machine with the next key.
func (g *giveKey) Verify(ctx context.Context, r report.Reporter) error {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	return each(ctx, g.lab.Nodes(), func(_ int, m *config.Machine) error {
		c, err := g.dial(ctx, m.Name, g.file)
		if err != nil {
			return fault.New(fault.Failed, m.Name, rotateKeyCmd, "the next key was put there, and it does not let k3lab in: %w", err)
		}
		r.Report(report.Event{Kind: report.ObjectState, Object: m.Name, Message: "lets the next key in", Done: true})
		return c.Close()
	})
}
