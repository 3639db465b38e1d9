package desired

import (
	"strings"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
)

const (
	sshUnit = "ssh.service"
	// sshdPath sorts before all others: sshd takes the first value it reads.
	sshdPath   = "/etc/ssh/sshd_config.d/00-k3lab.conf"
	bannerPath = "/etc/ssh/k3lab-banner"
)

// sshdHardened leaves what k3lab itself needs: logging in by key, sudo, and
// forwarding to ports of the machine, through which etcd is asked. Algorithms
// are taken away from those OpenSSH has by default, not listed: each version has
// new ones.
const sshdHardened = `PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitEmptyPasswords no
PubkeyAuthentication yes
PermitUserEnvironment no
MaxAuthTries 4
LoginGraceTime 30
ClientAliveInterval 60
ClientAliveCountMax 3
LogLevel VERBOSE
X11Forwarding no
AllowAgentForwarding no
AllowTcpForwarding local
AllowStreamLocalForwarding no
GatewayPorts no
PermitTunnel no
KexAlgorithms -diffie-hellman-group1-*,diffie-hellman-group14-*,diffie-hellman-group-exchange-*,ecdh-sha2-nistp*
Ciphers -3des-cbc,aes*-cbc
MACs -hmac-sha1*,hmac-sha2-256,hmac-sha2-512,umac-64*,umac-128@openssh.com
`

// sshdCheck refuses settings that this sshd does not know, and an sshd that
// would not read them: then they would promise what does not hold.
const sshdCheck = `/usr/sbin/sshd -t -f "$0" || exit 1
grep -Eiqs '^[[:space:]]*Include[[:space:]]+(/etc/ssh/)?sshd_config\.d/\*\.conf' /etc/ssh/sshd_config && exit 0
echo '/etc/ssh/sshd_config does not read /etc/ssh/sshd_config.d: make "Include /etc/ssh/sshd_config.d/*.conf" its first line, or set access.harden_sshd: false' >&2
exit 1`

// secureShell is who may log in and how.
func secureShell(lab *config.Lab, in Inputs) []converger.Resource {
	conf := converger.Resource{Absent: &converger.Absent{Path: sshdPath}}
	banner := converger.Resource{Absent: &converger.Absent{Path: bannerPath}}
	var settings strings.Builder
	if lab.OS.Banner != "" {
		banner = file(bannerPath, strings.TrimRight(lab.OS.Banner, "\n")+"\n", 0o644)
		settings.WriteString("Banner " + bannerPath + "\n")
	}
	if lab.Access.HardenSSHD {
		settings.WriteString(sshdHardened)
	}
	if settings.Len() > 0 {
		conf = file(sshdPath, header+settings.String(), 0o600)
		conf.File.Check = []string{"/bin/sh", "-c", sshdCheck, "{}"}
	}
	reload := converger.Resource{Unit: &converger.Unit{Name: sshUnit, AsIs: true, ReloadOn: []string{conf.ID()}}}
	conf.Guarded, reload.Guarded = true, true // a new connection must prove that one can still log in
	return tagged(TagSSH,
		authorizedKeys(lab, in),
		banner, conf, reload,
	)
}

func authorizedKeys(lab *config.Lab, in Inputs) converger.Resource {
	return converger.Resource{Keys: &converger.AuthorizedKeys{User: lab.Access.User, Keys: in.AuthorizedKeys, Retired: in.RetiredKeys}}
}
