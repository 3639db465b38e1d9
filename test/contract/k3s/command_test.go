package k3s

import (
	"regexp"
	"strings"
	"testing"
)

// commandLine is what k3s says without a cluster.
func commandLine(t *testing.T, c *cluster) {
	version := `v\d+\.\d+\.\d+\+k3s\d+`
	tests := []struct {
		name   string
		args   []string
		config string
		stdout string // regular expressions; empty matches only nothing
		stderr string // or "any"
		code   int
	}{
		{
			name: "version", args: []string{"--version"},
			stdout: `^k3s version ` + version + ` \(([0-9a-f]{8}|k3lab stand-in)\)\ngo version go1\.\d+(\.\d+)?\n$`,
		},
		{name: "short version", args: []string{"-v"}, stdout: `^k3s version ` + version + ` \(`},
		{
			name: "help lists the commands", args: []string{"--help"},
			stdout: `(?s)COMMANDS:.*\bserver .*\bagent .*\bkubectl .*\bcrictl .*\bctr .*\btoken .*` +
				`\betcd-snapshot .*\bsecrets-encrypt .*\bcertificate `,
		},
		{name: "kubectl", args: []string{"kubectl", "version", "--client"}, stdout: `^Client Version: ` + version + `\n`},
		{name: "generated token", args: []string{"token", "generate"}, stdout: `^[a-z0-9]{6}\.[a-z0-9]{16}\n$`},
		{
			name: "unknown flag", args: []string{"server", "--no-such-flag"}, stdout: "any",
			stderr: `flag provided but not defined: -no-such-flag`, code: 1,
		},
		{
			name: "broken configuration file", args: []string{"server"}, config: "token: [",
			stderr: `level=fatal msg="yaml: line 1: `, code: 1,
		},
		{
			name: "agent without a server", args: []string{"agent"}, config: "token: x",
			stderr: `level=fatal msg="Error: --server is required"`, code: 1,
		},
		{
			name: "snapshot without a server", args: []string{"etcd-snapshot", "ls"}, config: "no-such-key: 1",
			stderr: `(?s)level=warning msg="Unknown flag --no-such-key found in config.yaml, skipping\\n".*` +
				`level=fatal msg="Error: open /var/lib/rancher/k3s/server/token: no such file or directory"`, code: 1,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c.spare.write(t, configFile, test.config)
			r := c.spare.k3s(t, test.args...)
			if r.code != test.code {
				t.Errorf("exit code %d, want %d", r.code, test.code)
			}
			matches(t, "stdout", r.stdout, test.stdout)
			if test.stderr != "" {
				matches(t, "stderr", r.stderr, test.stderr)
			}
		})
	}
	t.Run("kubectl by its own name", func(t *testing.T) {
		r := c.spare.run(t, "/usr/local/bin/kubectl", "version", "--client")
		matches(t, "stdout", r.stdout, `^Client Version: `+version+`\n`)
	})
	t.Run("snapshots while the server is down", func(t *testing.T) {
		c.spare.write(t, configFile, "")
		c.spare.run(t, "mkdir", "-p", serverDir)
		c.spare.write(t, serverDir+"token", token+"\n")
		defer c.spare.remove(t, "/var/lib/rancher/k3s/server")
		r := c.spare.k3s(t, "etcd-snapshot", "ls")
		if r.code != 1 || r.stdout != "" {
			t.Errorf("exit code %d, want 1; stdout %q", r.code, r.stdout)
		}
		matches(t, "stderr", r.stderr, `level=fatal msg="Error: .*failed to get CA certs: .*connection refused"`)
	})
	t.Run("unknown configuration key of an agent", func(t *testing.T) {
		c.spare.write(t, configFile, "no-such-key: 1\n")
		r := c.spare.k3s(t, "agent")
		if r.code != 1 {
			t.Errorf("exit code %d, want 1", r.code)
		}
		matches(t, "output", r.stdout+r.stderr, `level=fatal msg="Error: flag provided but not defined: -no-such-key"`)
	})
}

func matches(t *testing.T, what, text, want string) {
	t.Helper()
	if want == "any" {
		return
	}
	if want == "" {
		want = "^$"
	}
	if !regexp.MustCompile(want).MatchString(text) {
		t.Errorf("%s does not match %s:\n%s", what, want, text)
	}
}

// commands is what subcommands say on a running server.
func commands(t *testing.T, c *cluster) {
	m := c.first
	t.Run("kubectl", func(t *testing.T) {
		matches(t, "stdout", m.ok(t, "kubectl", "get", "--raw", "/readyz"), "^ok$")
		matches(t, "stdout", m.ok(t, "kubectl", "get", "nodes", "--no-headers"),
			`^server-1 +Ready +control-plane,etcd +\S+ +v1\.\S+\n$`)
	})
	t.Run("token", func(t *testing.T) {
		made := m.ok(t, "token", "create", "--ttl", "1h", "--description", "contract")
		form := regexp.MustCompile(`^K10` + caHash(t, m) + `::([a-z0-9]{6})\.[a-z0-9]{16}\n$`)
		id := form.FindStringSubmatch(made)
		if id == nil {
			t.Fatalf("token create printed %q, want the form %s", made, form)
		}
		matches(t, "list", m.ok(t, "token", "list"), `^TOKEN +TTL +EXPIRES +USAGES +DESCRIPTION +EXTRA GROUPS\n`+
			id[1]+` +59m +\S+ +authentication,signing +contract +system:bootstrappers:k3s:default-node-token\n$`)
		m.ok(t, "token", "delete", id[1])
		matches(t, "list", m.ok(t, "token", "list"), `^TOKEN +TTL[^\n]+\n$`)
	})
	t.Run("certificate check", func(t *testing.T) {
		r := m.k3s(t, "certificate", "check", "--output", "table")
		if r.code != 0 {
			t.Errorf("exit code %d:\n%s", r.code, r.stderr)
		}
		matches(t, "stdout", r.stdout, `(?m)^FILENAME +SUBJECT +USAGES +EXPIRES +RESIDUAL TIME +STATUS$`)
		matches(t, "stdout", r.stdout, `(?m)^client-admin\.crt +system:admin +ClientAuth +\w+ \d+, \d+ \d+:\d+ UTC +1 year +OK *$`)
		matches(t, "stdout", r.stdout, `(?m)^client-admin\.crt +k3s-client-ca@\d+ +CertSign +\w+ \d+, \d+ \d+:\d+ UTC +10 years +OK *$`)
		matches(t, "stdout", r.stdout, `(?m)^client-kubelet\.crt +system:node:server-1 +ClientAuth `)
		matches(t, "stdout", r.stdout, `(?m)^peer-server-client\.crt +etcd-peer +ServerAuth,ClientAuth `)

		r = m.k3s(t, "certificate", "check")
		matches(t, "text", r.stdout+r.stderr,
			`level=info msg="client-admin\.crt: certificate system:admin \(ClientAuth\) is ok, expires at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"`)
	})
	t.Run("secrets-encrypt status", func(t *testing.T) {
		status := m.ok(t, "secrets-encrypt", "status")
		for _, want := range []string{
			`(?m)^Encryption Status: Enabled$`, `(?m)^Current Rotation Stage: start$`,
			`(?m)^Server Encryption Hashes: All hashes match$`, `(?m)^ \* +AES-CBC +aescbckey *$`,
		} {
			matches(t, "stdout", status, want)
		}
		if strings.Contains(status, token) {
			t.Error("the status shows the token")
		}
	})
}
