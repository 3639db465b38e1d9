package cluster_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/cluster"
	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
)

// world is machines and an API whose state a test sets.
type world struct {
	mu      sync.Mutex
	units   map[string]cluster.UnitState // no entry: the machine does not answer
	metrics map[string]string            // of the datastore member; no entry: it does not answer
	// addresses is what the kernel lists of a machine.
	addresses map[string]string
	asked     int
	onAsk     func(n int) // called with the number of units asked so far
}

func (w *world) Unit(_ context.Context, machine, _ string) (cluster.UnitState, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if w.onAsk != nil {
		w.onAsk(w.asked)
	}
	u, ok := w.units[machine]
	if !ok {
		return u, errors.New("no route to host")
	}
	return u, nil
}

func (w *world) Dial(_ context.Context, machine, _, address string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text, ok := w.metrics[machine]
	if !ok || address != "127.0.0.1:2381" {
		return nil, errors.New("connection refused")
	}
	here, there := net.Pipe()
	go func() {
		_ = http.Serve(&oneConn{conn: there}, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write([]byte(text))
		}))
	}()
	return here, nil
}

// oneConn is a listener that accepts one connection.
type oneConn struct {
	conn net.Conn
	done bool
}

func (l *oneConn) Accept() (net.Conn, error) {
	if l.done {
		return nil, net.ErrClosed
	}
	l.done = true
	return l.conn, nil
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

func (w *world) ReadFile(_ context.Context, machine, path string) ([]byte, error) {
	if list, ok := w.addresses[machine]; ok && path == "/proc/net/fib_trie" {
		return []byte(list), nil
	}
	return nil, errors.New("no such file")
}

func (w *world) Journal(_ context.Context, machine, unit string, _ int) (string, error) {
	return machine + " " + unit + ": out of memory\n", nil
}

const voter = "etcd_server_has_leader 1\netcd_server_is_learner 0\n"

func threeServers() *config.Lab {
	lab := &config.Lab{}
	for i, name := range []string{"server-1", "server-2", "server-3"} {
		lab.Machines = append(lab.Machines, &config.Machine{
			Name: name, Role: config.RoleServer, Enabled: true, IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + i)}),
		})
	}
	return lab
}

func healthy() *world {
	up := cluster.UnitState{Active: "active", Sub: "running"}
	return &world{
		units:   map[string]cluster.UnitState{"server-1": up, "server-2": up, "server-3": up},
		metrics: map[string]string{"server-1": voter + "etcd_server_is_leader 1\n", "server-2": voter, "server-3": voter},
	}
}

func observer(w *world) *cluster.Observer {
	return &cluster.Observer{Lab: threeServers(), Machines: w, Unit: func(*config.Machine) string { return "k3s.service" }}
}

func TestLook(t *testing.T) {
	tests := map[string]struct {
		change func(*world)
		quorum bool
		want   []string
	}{
		"all vote; no kubeconfig yet": {func(*world) {}, true, []string{"api: no kubeconfig yet"}},
		"one machine dead": {func(w *world) {
			delete(w.units, "server-2")
			delete(w.metrics, "server-2")
		}, true, []string{"api: no kubeconfig yet", "server-2: does not answer SSH: no route to host"}},
		"two machines dead": {func(w *world) {
			for _, m := range []string{"server-1", "server-2"} {
				delete(w.units, m)
				delete(w.metrics, m)
			}
			w.metrics["server-3"] = "etcd_server_has_leader 0\netcd_server_is_learner 0\n"
		}, false, []string{
			"datastore: quorum lost: 0 of 3 servers vote, 2 are needed", "api: no kubeconfig yet",
			"server-1: does not answer SSH: no route to host", "server-2: does not answer SSH: no route to host",
			"server-3: its datastore member has no leader",
		}},
		"a learner does not count": {func(w *world) {
			w.metrics["server-3"] = "etcd_server_has_leader 1\netcd_server_is_learner 1\n"
		}, true, []string{"api: no kubeconfig yet", "server-3: its datastore member is still a learner"}},
		"K3s stopped": {func(w *world) {
			w.units["server-1"] = cluster.UnitState{Active: "inactive", Sub: "dead"}
			delete(w.metrics, "server-1")
		}, true, []string{"api: no kubeconfig yet", "server-1: K3s is inactive (dead)"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := healthy()
			tt.change(w)
			h := observer(w).Look(context.Background())
			if d := cmp.Diff(tt.want, h.Problems()); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
			if h.Quorum() != tt.quorum {
				t.Errorf("quorum %v, want %v", h.Quorum(), tt.quorum)
			}
		})
	}
}

func TestAwaitGivesUpOnAUnitThatKeepsRestarting(t *testing.T) {
	w := healthy()
	w.onAsk = func(n int) {
		w.units["server-2"] = cluster.UnitState{Active: "activating", Sub: "auto-restart", Restarts: n}
	}
	a := cluster.Await{
		Observer: observer(w), Interval: time.Millisecond, MaxRestarts: 20,
		Fetch: func(context.Context) ([]byte, error) { return nil, errors.New("not there yet") },
	}
	_, err := a.Run(context.Background(), report.Discard)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"K3s does not stay up on server-2",
		"server-2: K3s is activating (auto-restart); its journal ends with\n    server-2 k3s.service: out of memory",
		"(try: k3lab ssh server-2 -- journalctl -u k3s -n 100)",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	if fault.KindOf(err) != fault.Unhealthy {
		t.Errorf("kind %d, want unhealthy", fault.KindOf(err))
	}
}

func TestAwaitEndsWithItsContext(t *testing.T) {
	w := healthy()
	delete(w.units, "server-3")
	fetch := func(context.Context) ([]byte, error) { return nil, errors.New("not there yet") }
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	a := cluster.Await{Observer: observer(w), Interval: time.Millisecond, MaxRestarts: 5, Fetch: fetch}
	if _, err := a.Run(ctx, report.Discard); fault.KindOf(err) != fault.Unhealthy || !strings.Contains(err.Error(), "server-3: does not answer SSH") {
		t.Errorf("timeout: %v", err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	w.onAsk = func(n int) {
		if n > 10 {
			cancel()
		}
	}
	if _, err := a.Run(ctx, report.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("Ctrl-C: %v, want it passed on", err)
	}
}

// TestAwaitWaitsForMore: what a caller asks of a member beyond its health is waited
// for too, and said where it does not come.
func TestAwaitWaitsForMore(t *testing.T) {
	noAPI := func(context.Context) ([]byte, error) { return nil, errors.New("not there yet") }
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	a := cluster.Await{
		Observer: observer(healthy()), Interval: time.Millisecond, MaxRestarts: 5, Fetch: noAPI,
		Accept: func(*cluster.Member) bool { return true },
		Also: func(m *cluster.Member) string {
			if m.Name == "server-2" {
				return "has not booted since"
			}
			return ""
		},
	}
	_, err := a.Run(ctx, report.Discard)
	if want := "server-2: has not booted since; its journal ends with"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q in it", err, want)
	}
	if err != nil && strings.Contains(err.Error(), "server-1") {
		t.Errorf("a member that is whole is named: %v", err)
	}
}
