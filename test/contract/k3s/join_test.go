package k3s

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// refusals are servers and agents that the first server does not let in.
func refusals(t *testing.T, c *cluster) {
	otherCluster := "K10" + strings.Repeat("a", 64) + "::server:" + token
	for _, test := range []struct{ name, role, token, log string }{
		{
			"server with a wrong token", "server", "wrong",
			`level=fatal msg="Error: preparing server: failed to bootstrap cluster data: not authorized"`,
		},
		{
			"server with the token of another cluster", "server", otherCluster,
			`level=fatal msg="Error: preparing server: .*failed to validate token: ` +
				`token CA hash does not match the Cluster CA certificate hash: a{64} != ` + caHash(t, c.first),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.spare.remove(t, "/var/lib/rancher/k3s/server")
			config := fmt.Sprintf("server: https://%s:6443\ntoken: %s\nnode-ip: %s\n", c.first.ip, test.token, c.spare.ip)
			c.spare.write(t, configFile, config)
			p := c.spare.start(t, test.role, "--disable-agent")
			if code := p.waitEnd(t); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			matches(t, "log", p.tail(30), test.log)
		})
	}
	t.Run("agent with a wrong token keeps asking", func(t *testing.T) {
		c.spare.remove(t, "/var/lib/rancher/k3s/server", "/var/lib/rancher/k3s/agent")
		c.spare.write(t, configFile, fmt.Sprintf("server: https://%s:6443\ntoken: wrong\n", c.first.ip))
		p := c.spare.start(t, "agent")
		p.waitLog(t, "Waiting to retrieve agent configuration; server is not ready: failed to retrieve configuration from server: not authorized")
		p.stop(t)
	})
	waitNodes(t, c.first, "server-1")
}

// joining grows the cluster to three servers and an agent.
func joining(t *testing.T, c *cluster) {
	before := promotions(t, c.first)
	second := serverConfig(t, c.second, fmt.Sprintf("server: https://%s:6443\n", c.first.ip))
	c.second.write(t, configFile, second)
	c.third.write(t, configFile, serverConfig(t, c.third, fmt.Sprintf("server: https://%s:6443\n", c.second.ip)))
	c.agent.write(t, configFile, agentConfig(t, c.agent, c.first))

	agent := c.launch(t, c.agent, "agent")
	c.launch(t, c.second, "server").waitReady(t)
	agent.waitReady(t)
	c.launch(t, c.third, "server").waitReady(t)
	waitNodes(t, c.third, "agent-1", "server-1", "server-2", "server-3")
	waitVoters(t, c.third, "server-1", "server-2", "server-3")

	// A member that is promoted was a learner before.
	if got := promotions(t, c.first) - before; got != 2 {
		t.Errorf("the first member promoted %d learners, want 2", got)
	}
	for _, m := range []*machine{c.second, c.third} {
		if got := metric(t, m, "etcd_server_is_learner"); got != 0 {
			t.Errorf("%s: still a learner", m.name)
		}
	}
	t.Run("servers share", func(t *testing.T) {
		for _, file := range []string{
			"token", "tls/server-ca.crt", "tls/server-ca.key", "tls/client-ca.key", "tls/service.key", "tls/etcd/peer-ca.key", "cred/encryption-config.json",
		} {
			if diff := cmp.Diff(c.first.read(t, serverDir+file), c.third.read(t, serverDir+file)); diff != "" {
				t.Errorf("%s differs between servers", file)
			}
		}
	})
	t.Run("own etcd names", func(t *testing.T) {
		matches(t, "name", c.second.read(t, serverDir+"db/etcd/name"), `^server-2-[0-9a-f]{8}$`)
	})
	t.Run("agents have nothing of a server", func(t *testing.T) {
		if got := describe(c.agent.path(serverDir)); got != "no such file or directory" {
			t.Errorf("%s is %q", serverDir, got)
		}
		listening := c.agent.listening(t)
		for address, want := range map[string]bool{"127.0.0.1:6444": true, "*:10250": true, "*:6443": false} {
			if listening[address] != want {
				t.Errorf("agent listens on %s: %v", address, listening[address])
			}
		}
	})
}

// waitVoters waits until exactly these Nodes say that they vote, and carry the
// role label.
func waitVoters(t *testing.T, m *machine, names ...string) {
	t.Helper()
	api := m.clients(t)
	wait(t, "voters", func() error {
		nodes, err := api.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{LabelSelector: "node-role.kubernetes.io/etcd=true"})
		if err != nil {
			return err
		}
		var voters []string
		for _, node := range nodes.Items {
			for _, condition := range node.Status.Conditions {
				if condition.Type == "EtcdIsVoter" && condition.Status == "True" && condition.Reason == "MemberNotLearner" {
					voters = append(voters, node.Name)
				}
			}
		}
		if !cmp.Equal(voters, names) {
			return fmt.Errorf("voters are %q, want %q", voters, names)
		}
		return nil
	})
}

func promotions(t *testing.T, m *machine) int {
	return metric(t, m, "etcd_server_learner_promote_successes")
}

// metric reads one number that etcd publishes on the machine.
func metric(t *testing.T, m *machine, name string) int {
	t.Helper()
	_, body := get(t, m, "http://127.0.0.1:2381/metrics", "", "")
	found := regexp.MustCompile(`(?m)^` + name + ` (\d+)$`).FindStringSubmatch(body)
	if found == nil {
		t.Fatalf("%s: no metric %s", m.name, name)
	}
	value, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// rebuiltMachine is a new machine under the name of an old one.
func rebuiltMachine(t *testing.T, c *cluster) {
	c.processes[c.agent].stop(t)
	c.agent.remove(t, "/etc/rancher/node", "/var/lib/rancher/k3s/agent")
	p := c.launch(t, c.agent, "agent")
	p.waitLog(t, "Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match server node-passwd entry")
	secrets := c.first.clients(t).CoreV1().Secrets("kube-system")
	if err := secrets.Delete(t.Context(), "agent-1.node-password.k3s", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	p.waitReady(t)
	soon(t, "a new Secret", func() error {
		_, err := secrets.Get(t.Context(), "agent-1.node-password.k3s", metav1.GetOptions{})
		return err
	})
}

// restartWithoutPeer restarts a server while the one in its `server:` is down.
// Two of three members are gone for that time; whoever gives up meanwhile is
// started again, as its unit would.
func restartWithoutPeer(t *testing.T, c *cluster) {
	c.processes[c.first].stop(t)
	c.processes[c.second].stop(t)
	second := c.launch(t, c.second, "server")
	second.while(t, "READY=1", func() error {
		select {
		case <-c.processes[c.third].ended:
			c.launch(t, c.third, "server")
		default:
		}
		return second.isReady()
	})
	mark(t, c.second, "without-first")
	c.launch(t, c.first, "server").waitReady(t)
	waitNodes(t, c.first, "agent-1", "server-1", "server-2", "server-3")
	waitVoters(t, c.first, "server-1", "server-2", "server-3")
	api := c.third.clients(t).CoreV1().ConfigMaps("default")
	if err := api.Delete(t.Context(), "mark-without-first", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}
