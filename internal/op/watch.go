package op

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/k3lab/k3lab/internal/cluster"
	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/desired"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

const (
	// lookEvery is the time between two looks at a cluster that comes up.
	lookEvery = 500 * time.Millisecond
	// restartsAllowed is how often systemd may restart K3s on one machine while
	// the cluster comes up: a server that joins too early loses one or two.
	restartsAllowed = 6
)

// watch is the step that keeps the kubeconfig in the workspace and is done when
// the cluster is whole.
type watch struct {
	*session
	timeout time.Duration
	health  *cluster.Health // of the last look
}

func (s *session) watch(timeout time.Duration) *watch { return &watch{session: s, timeout: timeout} }

func (w *watch) Title() string { return "Cluster" }

// Plan compares the kubeconfig of the workspace with that of a server.
func (w *watch) Plan(ctx context.Context, _ report.Reporter) ([]step.Change, error) {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	change := step.Change{Layer: "platform", Object: "this workspace", Resource: "file .k3lab/kubeconfig", Action: step.Create}
	there, err := os.ReadFile(w.dir.Kubeconfig())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	want, err := w.fetch(ctx)
	switch {
	case err != nil && len(there) > 0:
		return nil, nil //nolint:nilerr // no server can be asked now; what is there stays
	case err != nil:
		change.Deferred = "no server has it yet"
	case cluster.StillGood(there, want, time.Now()):
		return nil, nil
	case len(there) > 0:
		change.Action = step.Update
	}
	return []step.Change{change}, nil
}

// Apply waits for the cluster and writes the kubeconfig.
func (w *watch) Apply(ctx context.Context, wr step.Writer, _ []step.Change) error {
	if err := w.await(ctx, wr); err != nil {
		return err
	}
	want, err := w.fetch(ctx)
	if err != nil {
		return err
	}
	return cluster.WriteKubeconfig(w.dir.Kubeconfig(), want)
}

// Verified reports whether Apply has just seen the cluster whole.
func (w *watch) Verified() bool { return w.health != nil }

// Verify is done when every server is a started voter and every node is ready.
func (w *watch) Verify(ctx context.Context, r report.Reporter) error {
	return w.await(ctx, r)
}

func (w *watch) await(ctx context.Context, r report.Reporter) error {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	vip := vipWait{lab: w.lab, now: time.Now, version: func() string { return w.k3sVersion(ctx) }}
	a := cluster.Await{
		Observer: w.observer(), Fetch: w.fetch, Accept: w.accept, Finally: vip.look, Interval: lookEvery, MaxRestarts: restartsAllowed,
	}
	health, err := a.Run(ctx, r)
	if err == nil {
		w.health = health
	}
	return err
}

// accept lets nodes be without a network where the user brings it (cni: none).
func (w *watch) accept(m *cluster.Member) bool {
	return w.lab.K3s.CNI == "none" && m.Node != nil && m.Unit.Active == "active" &&
		(m.Datastore == nil || m.Datastore.Voter())
}

// member waits until one member is whole again, as between two restarts.
func (w *watch) member(ctx context.Context, name string) error {
	return w.memberSince(ctx, name, "")
}

// memberSince waits until one member is whole, after the boot with this ID where
// one is given: until its kubelet reports, the node is what it was before.
func (w *watch) memberSince(ctx context.Context, name, boot string) error {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	accept := func(m *cluster.Member) bool { return m.Name != name || w.accept(m) }
	booted := func(m *cluster.Member) string {
		if m.Name == name && boot != "" && (m.Node == nil || m.Node.BootID != boot) {
			return "its kubelet has not reported since the machine booted"
		}
		return ""
	}
	a := cluster.Await{Observer: w.observer(), Fetch: w.fetch, Accept: accept, Also: booted, Interval: lookEvery, MaxRestarts: restartsAllowed}
	_, err := a.Run(ctx, report.Discard)
	return err
}

func (w *watch) observer() *cluster.Observer {
	o := &cluster.Observer{
		Lab: w.lab, Machines: onMachines{w.fleet}, Unit: desired.Unit, URLs: apiURLs(w.lab), Kubeconfig: w.kept(), VIP: w.lab.Network.VIP,
	}
	if w.lab.Network.VIPProvider == config.VIPKubeVIP {
		o.VIPApp = desired.KubeVIPApp
	}
	return o
}

// kept is the workspace's kubeconfig, or nothing.
func (w *watch) kept() []byte {
	b, err := os.ReadFile(w.dir.Kubeconfig())
	if err != nil {
		return nil
	}
	return b
}

// apiURLs is everywhere the API may answer: the VIP, then each server.
func apiURLs(lab *config.Lab) []string {
	var urls []string
	if lab.Network.VIP.IsValid() {
		urls = append(urls, desired.ServerURL(lab.Network.VIP))
	}
	for _, s := range lab.Servers() {
		urls = append(urls, desired.ServerURL(s.IP))
	}
	return urls
}

// fetch reads the administrator's kubeconfig from the first server that has it.
func (s *session) fetch(ctx context.Context) ([]byte, error) {
	text, err := s.firstServer(ctx, func(ctx context.Context, server string) ([]byte, error) {
		return s.fleet.ReadFile(ctx, server, desired.KubeconfigPath)
	})
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fault.New(fault.Unreachable, "kubeconfig", "k3lab up", "%w", errNoKubeconfig)
	}
	return cluster.Kubeconfig(text, desired.APIURL(s.lab), s.lab.Name)
}

// firstServer asks all servers at once and returns the first answer that is no
// error; without one, the errors.
func (s *session) firstServer(ctx context.Context, ask func(ctx context.Context, server string) ([]byte, error)) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	servers := s.lab.Servers()
	type answer struct {
		text []byte
		err  error
	}
	answers := make(chan answer, len(servers))
	for _, m := range servers {
		go func() {
			if err := reach(ctx, s.fleet, m.Name); err != nil {
				answers <- answer{nil, err}
				return
			}
			text, err := ask(ctx, m.Name)
			answers <- answer{text, err}
		}()
	}
	var errs []error
	for range servers {
		a := <-answers
		if a.err == nil {
			return a.text, nil
		}
		errs = append(errs, a.err)
	}
	return nil, errors.Join(errs...)
}
