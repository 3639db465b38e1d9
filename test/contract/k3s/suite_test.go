package k3s

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/k3lab/k3lab/internal/config"
)

const token = "contract-secret"

// TestContract holds every k3s binary to the same words.
func TestContract(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for namespaces and cgroups")
	}
	for _, tool := range []string{"ip", "unshare", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	standIn := os.Getenv("K3LAB_STANDIN")
	if standIn == "" {
		standIn = filepath.Join("..", "..", "..", "bin", "standin", "k3s")
	}
	standIn, err := filepath.Abs(standIn)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("stand-in", func(t *testing.T) { contract(t, standIn) })
	t.Run("release", func(t *testing.T) {
		release := os.Getenv("K3LAB_K3S_BINARY")
		if release == "" || sameFile(release, standIn) {
			t.Skip("K3LAB_K3S_BINARY names no other k3s")
		}
		if _, err := exec.LookPath("iptables"); err != nil {
			t.Skip("iptables is not installed, which K3s's kube-proxy needs")
		}
		contract(t, release)
	})
}

func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}

// contract is the whole suite. Later parts build on the cluster of earlier
// ones, because starting clusters is what takes the time.
func contract(t *testing.T, binary string) {
	if _, err := os.Stat(binary); err != nil {
		t.Skipf("no k3s binary (try: make standin): %v", err)
	}
	lab := newLab(t, binary)
	c := &cluster{
		lab:    lab,
		first:  lab.machine(t, "server-1"),
		second: lab.machine(t, "server-2"),
		third:  lab.machine(t, "server-3"),
		agent:  lab.machine(t, "agent-1"),
		spare:  lab.machine(t, "spare"),

		processes: map[*machine]*process{},
	}
	steps := []struct {
		name string
		run  func(*testing.T, *cluster)
		base bool // what follows makes no sense without it
	}{
		{name: "command line", run: commandLine},
		{name: "start of the first server", run: startFirst, base: true},
		{name: "configuration files", run: configurationFiles},
		{name: "files", run: files},
		{name: "kubeconfig", run: kubeconfig},
		{name: "ports", run: ports},
		{name: "http", run: httpAnswers},
		{name: "hardening", run: hardening},
		{name: "node of a server", run: serverNode},
		{name: "commands", run: commands},
		{name: "snapshots", run: snapshots},
		{name: "refusals", run: refusals},
		{name: "refused by kubelet", run: refusedByKubelet},
		{name: "encryption turned on later", run: encryptionLater},
		{name: "joining", run: joining, base: true},
		{name: "node of an agent", run: agentNode},
		{name: "rebuilt machine", run: rebuiltMachine},
		{name: "restart without the peer it joined through", run: restartWithoutPeer, base: true},
		{name: "restore", run: restore},
	}
	for _, step := range steps {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, c) }) && step.base {
			t.FailNow()
		}
	}
}

// cluster is what the parts of the suite share.
type cluster struct {
	lab                         *lab
	first, second, third, agent *machine
	spare                       *machine // joins nothing
	processes                   map[*machine]*process
}

// serverConfig is the configuration file of a server. What needs images from a
// registry is left out.
func serverConfig(t *testing.T, m *machine, more string) string {
	t.Helper()
	return fmt.Sprintf(`token: %s
node-ip: %s
secrets-encryption: true
disable: [traefik, servicelb, coredns, metrics-server, local-storage]
%s%s`, token, m.ip, hardened(t, m, config.RoleServer), more)
}

func agentConfig(t *testing.T, m *machine, server *machine) string {
	t.Helper()
	return fmt.Sprintf("token: %s\nnode-ip: %s\nserver: https://%s:6443\n%s", token, m.ip, server.ip, hardened(t, m, config.RoleAgent))
}

const configFile = "/etc/rancher/k3s/config.yaml"

// launch starts k3s and remembers it, so that a later part can stop it.
func (c *cluster) launch(t *testing.T, m *machine, role string) *process {
	t.Helper()
	p := m.start(t, role)
	c.processes[m] = p
	return p
}
