// Package op holds k3lab's operations, one file each. It alone composes the
// features and builds the real ports they work through.
package op

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/k3lab/k3lab/internal/apps"
	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/fleet"
	"github.com/k3lab/k3lab/internal/infra"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/secrets"
	"github.com/k3lab/k3lab/internal/sshkey"
	"github.com/k3lab/k3lab/internal/step"
	"github.com/k3lab/k3lab/internal/workspace"
)

// DefaultTimeout is how long an operation waits for a machine to boot, and then
// for the cluster to be whole.
const DefaultTimeout = 10 * time.Minute

// The layers, which docs/architecture.md describes.
const (
	LayerInfra    = "infra"
	LayerPlatform = "platform"
	LayerCluster  = "cluster"
	LayerApps     = apps.Layer
)

// Layers are all layers, from the lowest up.
func Layers() []string { return []string{LayerInfra, LayerPlatform, LayerCluster, LayerApps} }

// LabOptions are what every operation on a lab takes.
type LabOptions struct {
	Dir       string // of the workspace; empty: found from the working directory upwards
	Reporter  *report.Hub
	K3sBinary string   // instead of the release
	Terraform string   // the binary; empty: from PATH
	Layers    []string // that plan and up are limited to; none: all
}

// session is an open workspace with the ports to everything its lab consists of.
type session struct {
	opts     LabOptions
	computer computer
	dir      workspace.Dir
	lab      *config.Lab
	secrets  *secrets.Store
	supplies *supplies
	infra    *infra.Terraform
	fleet    *fleet.Fleet
	cleanup  []func() error
	// patience is how long a machine that answers may refuse our key: its first
	// boot may not have put it there yet.
	patience time.Duration
}

// open reads the workspace's settings and secrets. Nothing is contacted yet.
func open(opts LabOptions) (*session, error) {
	for _, l := range opts.Layers {
		if !slices.Contains(Layers(), l) {
			return nil, fault.New(fault.Failed, "", "valid: "+strings.Join(Layers(), ", "), "there is no layer %q", l)
		}
	}
	s, err := openSettings(opts)
	if err != nil {
		return nil, err
	}
	if s.secrets, err = secrets.Open(s.dir.Root()); err != nil {
		return nil, err
	}
	if err := s.restoreKey(); err != nil {
		return nil, err
	}
	token, err := s.secrets.Get("k3s_token")
	if err != nil {
		return nil, err
	}
	if s.supplies, err = s.newSupplies(token.Reveal()); err != nil {
		return nil, err
	}
	if s.infra, err = infra.New(s.infraOptions()); err != nil {
		return nil, err
	}
	s.fleet = s.newFleet()
	s.cleanup = append(s.cleanup, s.fleet.Close)
	return s, nil
}

// openSettings finds the workspace and reads its settings only.
func openSettings(opts LabOptions) (*session, error) {
	dir, err := workspace.Find(opts.Dir)
	if err != nil {
		return nil, err
	}
	lab, problems := config.Load(dir.Root())
	if err := problems.Err(); err != nil {
		return nil, err
	}
	if opts.Reporter != nil {
		for _, w := range problems.Warnings() {
			opts.Reporter.Report(report.Event{Kind: report.Warning, Message: w.Short()})
		}
	}
	c, err := readComputer(dir)
	return &session{opts: opts, dir: dir, lab: lab, computer: c}, err
}

// closeInto closes the session and joins its errors to those of the operation.
func (s *session) closeInto(err *error) {
	errs := []error{*err}
	for i := len(s.cleanup) - 1; i >= 0; i-- {
		errs = append(errs, s.cleanup[i]())
	}
	*err = errors.Join(errs...)
}

// lock takes the workspace for one operation and starts its journal.
func (s *session) lock(operation string) error {
	lock, err := workspace.AcquireLock(s.dir, operation)
	if err != nil {
		return err
	}
	// Only who has the lock removes what a plan has left for Terraform: for
	// everybody else it is that of the operation at work. Released last.
	s.cleanup = append(s.cleanup, lock.Release, s.infra.Close)
	journal, err := report.OpenJournal(s.dir.Runs(), operation)
	if err != nil {
		return err
	}
	s.opts.Reporter.Add(journal)
	return nil
}

// steps is the story of up: what plan shows, in the order it is applied.
func (s *session) steps(watch *watch) step.Sequence {
	layers := map[string]step.Sequence{
		LayerInfra:    {provision{infra.Provision(s.infra), s}},
		LayerPlatform: s.platform(watch.timeout),
		LayerCluster:  {watch, policies{s, watch}},
		LayerApps:     {&applications{session: s, watch: watch}},
	}
	var steps step.Sequence
	for _, l := range Layers() {
		if len(s.opts.Layers) == 0 || slices.Contains(s.opts.Layers, l) {
			steps = append(steps, layers[l]...)
		}
	}
	return steps
}

// platform is the steps of that layer; what is locked already is not planned.
func (s *session) platform(timeout time.Duration) step.Sequence {
	converge := s.converge(timeout)
	if len(s.unlocked()) == 0 {
		return step.Sequence{converge}
	}
	return step.Sequence{&pin{s}, converge}
}

// converge is the step that has the machines as they should be.
func (s *session) converge(timeout time.Duration) *converge {
	return &converge{
		lab: s.lab, machines: s.fleet, supplies: s.supplies, keyFile: s.keyFile(), authorized: sync.OnceValues(s.authorized),
		healthy: s.watch(timeout).member, timeout: timeout,
		api: func(ctx context.Context) (remembering, error) { return s.client(ctx) },
	}
}

// authorized are who may log in: the settings' keys and the one k3lab logs in with.
func (s *session) authorized() (sshkey.Keys, error) {
	return s.keyPair().Keys(s.lab.Access.PublicKeys)
}

// restoreKey has the file of k3lab's own key as the secrets file has it. Where
// there is no key pair yet, or no longer, a plan says it.
func (s *session) restoreKey() error {
	if s.lab.Access.KeyFile != "" {
		return nil
	}
	if _, err := s.keyPair().Restore(); !errors.Is(err, sshkey.ErrLost) {
		return err
	}
	return nil
}

// keyPair is what k3lab logs in with.
func (s *session) keyPair() sshkey.Pair {
	pair := sshkey.Pair{File: s.dir.SSHKey(), SecretsFile: s.dir.Path(secrets.FileName)}
	if s.lab.Access.KeyFile != "" {
		pair.Own = s.keyFile()
	}
	return pair
}

// checkNodes refuses what no operation on the cluster can work with.
func (s *session) checkNodes() error {
	if len(s.lab.Servers()) == 0 {
		return fault.New(fault.Invalid, "terraform/vars/nodes.yaml", "", "no machine has role server and is enabled")
	}
	return nil
}

var errNoKubeconfig = fmt.Errorf("no server has a kubeconfig yet")
