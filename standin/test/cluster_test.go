// Package test runs the built binary as whole clusters, each machine in a
// network namespace of its own.
package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const joinToken = "0123456789abcdef"

// build returns the binary to test: the one K3LAB_STANDIN_BINARY names, or one
// built now.
func build(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	if binary := os.Getenv("K3LAB_STANDIN_BINARY"); binary != "" {
		return binary
	}
	binary := filepath.Join(t.TempDir(), "k3s")
	run(t, "make", "-C", "..", "build", "OUT="+binary)
	return binary
}

// TestCluster is one story, because a cluster is dear to start: found, join,
// kill, restart, snapshot, leave, restore.
func TestCluster(t *testing.T) {
	binary := build(t)
	lan := newLAN(t)
	s1, s2, a1 := lan.machine("s1", binary), lan.machine("s2", binary), lan.machine("a1", binary)
	s1.configure("cluster-init: true", "token: "+joinToken, "disable: [traefik]", "node-taint: [only=quorum:PreferNoSchedule]")
	for _, m := range []*machine{s2, a1} {
		m.configure("server: https://"+s1.ip+":6443", "token: "+joinToken)
	}

	// The agent starts first and keeps asking.
	a1.start("agent")
	s1.start("server")
	s1.waitReady()
	a1.waitReady()
	s2.start("server")
	s2.waitReady()
	eventually(t, "three ready nodes, two of them voters", nodesReady(s1, map[string]string{
		"s1": "control-plane,etcd", "s2": "control-plane,etcd", "a1": "<none>",
	}))
	t.Run("a server's HTTP", func(t *testing.T) { checkHTTP(t, s1) })
	t.Run("pods are declared running", func(t *testing.T) {
		s1.mustKubectl("create", "deployment", "web", "--image=none", "--replicas=3")
		s1.mustKubectl("rollout", "status", "deployment/web", "--timeout=60s")
	})
	t.Run("a wrong token is refused", func(t *testing.T) {
		_, _, err := s2.command("curl", "-skf", "-u", "server:wrong", "https://"+s1.ip+":6443/v1-k3s/config")
		if code(err) != 22 {
			t.Fatalf("want curl to fail with an HTTP error, got %v", err)
		}
	})
	t.Run("another machine of the same name is refused", func(t *testing.T) { checkNodePassword(t, lan, s1, binary) })
	t.Run("a component's death ends the server", func(t *testing.T) {
		must(t, syscall.Kill(s2.pidOf("etcd"), syscall.SIGKILL))
		<-s2.exited
		if s2.main.ProcessState.ExitCode() != 1 {
			t.Fatalf("want exit code 1, got %s", s2.main.ProcessState)
		}
		if pids := s2.pids(); len(pids) > 0 {
			t.Fatalf("processes left: %v", pids)
		}
		s2.start("server")
		s2.waitReady()
	})
	t.Run("killed servers come back without each other's help", func(t *testing.T) {
		s1.kill()
		s2.kill()
		s2.start("server")
		s1.start("server")
		s2.waitReady()
		s1.waitReady()
	})
	saved := saveSnapshot(t, s1)
	t.Run("a deleted node's member leaves", func(t *testing.T) {
		s1.mustKubectl("delete", "node", "s2", "--wait=false")
		<-s2.exited
		eventually(t, "the node to be gone", func() error {
			if out, err := s1.kubectl("get", "node", "s2", "--ignore-not-found"); err != nil || out != "" {
				return fmt.Errorf("%q, %w", out, err)
			}
			return nil
		})
		s2.start("server")
		s2.waitReady()
		eventually(t, "the node to be back", nodesReady(s1, map[string]string{"s2": "control-plane,etcd"}))
	})
	t.Run("restore", func(t *testing.T) { checkRestore(t, s1, s2, saved) })
}

// nodesReady checks that nodes are Ready and have the given roles.
func nodesReady(from *machine, roles map[string]string) func() error {
	return func() error {
		out, err := from.kubectl("get", "nodes", "--no-headers")
		if err != nil {
			return err
		}
		got := map[string]string{}
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 2 && f[1] == "Ready" {
				got[f[0]] = f[2]
			}
		}
		for name, role := range roles {
			if got[name] != role {
				return fmt.Errorf("%s has role %q, want %q; nodes:\n%s", name, got[name], role, out)
			}
		}
		return nil
	}
}

func checkHTTP(t *testing.T, m *machine) {
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"ping", []string{"-sk", "https://127.0.0.1:6443/ping"}, "pong"},
		{"ca", []string{"-sk", "https://" + m.ip + ":6443/cacerts"}, "-----BEGIN CERTIFICATE-----"},
		{"anonymous api", []string{"-sk", "https://127.0.0.1:6443/version"}, `"code": 401`},
		{"bad token", []string{"-sk", "-u", "node:bad", "https://127.0.0.1:6443/v1-k3s/config"}, `"code":401`},
		{"local port", []string{"-sk", "https://127.0.0.1:6444/ping"}, "pong"},
		{"etcd health", []string{"-s", "http://127.0.0.1:2381/health"}, `"health":"true"`},
		{"kubelet", []string{"-s", "http://127.0.0.1:10248/healthz"}, "ok"},
	} {
		out, errOut, err := m.command(append([]string{"curl"}, c.args...)...)
		if err != nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: want %q, got %q (%v %s)", c.name, c.want, out, err, errOut)
		}
	}
}

func checkNodePassword(t *testing.T, lan *lan, s1 *machine, binary string) {
	double := lan.machine("a1x", binary)
	double.configure("server: https://"+s1.ip+":6443", "token: "+joinToken, "node-name: a1")
	double.start("agent")
	eventually(t, "the refusal", func() error {
		if !strings.Contains(tail(double.log.Name()), "Node password rejected") {
			return errors.New("not in the log")
		}
		return nil
	})
	s1.mustKubectl("-n", "kube-system", "delete", "secret", "a1.node-password.k3s")
	double.waitReady()
	double.kill()
	// The first a1 is the one refused from now on, so give the name back.
	s1.mustKubectl("-n", "kube-system", "delete", "secret", "a1.node-password.k3s")
}

func saveSnapshot(t *testing.T, m *machine) string {
	t.Helper()
	m.mustKubectl("create", "namespace", "before")
	_, errOut, err := m.k3s("etcd-snapshot", "save")
	if err != nil || !strings.Contains(errOut, "saved.") {
		t.Fatalf("etcd-snapshot save: %v\n%s", err, errOut)
	}
	m.mustKubectl("create", "namespace", "after")
	files, err := filepath.Glob(filepath.Join(m.dir, "var/k3s/server/db/snapshots/on-demand-"+m.name+"-*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("want one snapshot, got %v, %v", files, err)
	}
	name := filepath.Base(files[0])
	if out := m.mustKubectl("get", "etcdsnapshotfiles", "-o", "jsonpath={.items[*].spec.snapshotName}"); out != name {
		t.Fatalf("want an object for %s, got %q; save said:\n%s", name, out, errOut)
	}
	return "/var/lib/rancher/k3s/server/db/snapshots/" + name
}

func checkRestore(t *testing.T, s1, s2 *machine, snapshot string) {
	s1.stop()
	s2.stop()
	_, errOut, err := s1.k3s("server", "--token=wrong", "--cluster-reset", "--cluster-reset-restore-path="+snapshot)
	if err == nil || !strings.Contains(errOut, "different token") {
		t.Fatalf("a restore under another token: %v\n%s", err, errOut)
	}
	if _, errOut, err = s1.k3s("server", "--cluster-reset", "--cluster-reset-restore-path="+snapshot); err != nil {
		t.Fatalf("restore: %v\n%s", err, errOut)
	}
	s1.start("server")
	s1.waitReady()
	s1.mustKubectl("get", "namespace", "before")
	if out := s1.mustKubectl("get", "namespace", "after", "--ignore-not-found"); out != "" {
		t.Fatalf("made after the snapshot, but there: %s", out)
	}
	must(t, os.Rename(filepath.Join(s2.dir, "var/k3s/server/db"), filepath.Join(s2.dir, "db-old")))
	s2.start("server")
	s2.waitReady()
	eventually(t, "both servers to vote", nodesReady(s1, map[string]string{
		"s1": "control-plane,etcd", "s2": "control-plane,etcd", "a1": "<none>",
	}))
}

func code(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}
