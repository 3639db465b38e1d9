package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// script runs a shell script as root on a machine and returns what it prints.
func (l *lab) script(machine, text string) string {
	l.t.Helper()
	return l.onMachine(machine, "bash", "-euc", quoted(text))
}

func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// everywhere runs a script on all machines at once and returns what each prints.
func (l *lab) everywhere(text string) map[string]string {
	l.t.Helper()
	machines := l.machines()
	out, errs := make([]string, len(machines)), make([]error, len(machines))
	var all sync.WaitGroup
	for i, m := range machines {
		all.Go(func() { out[i], errs[i] = l.run("-C", l.dir, "ssh", m, "--", "sudo", "bash", "-euc", quoted(text)) })
	}
	all.Wait()
	said := map[string]string{}
	for i, m := range machines {
		if errs[i] != nil {
			l.t.Fatalf("%s: %v\n%s", m, errs[i], out[i])
		}
		said[m] = withoutBanner(out[i])
	}
	return said
}

// edit replaces text in a settings file, once.
func (l *lab) edit(file, from, to string) {
	l.t.Helper()
	path := filepath.Join(l.dir, file)
	text, err := os.ReadFile(path)
	if err != nil {
		l.t.Fatal(err)
	}
	if !strings.Contains(string(text), from) {
		l.t.Fatalf("%s does not say %q:\n%s", file, from, text)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), from, to, 1)), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// machines are the names of all machines, servers first.
func (l *lab) machines() []string {
	l.t.Helper()
	var names []string
	for _, m := range l.members() {
		names = append(names, m.Name)
	}
	return names
}

// address is that of a machine, as the settings have it.
func (l *lab) address(machine string) string {
	l.t.Helper()
	for _, m := range l.members() {
		if m.Name == machine {
			return m.Address
		}
	}
	l.t.Fatalf("status does not know %s", machine)
	return ""
}

type member struct{ Name, Address string }

func (l *lab) members() []member {
	l.t.Helper()
	var s struct{ Members []member }
	mustJSON(l.t, l.exit(0, "status", "--json"), &s)
	return s.Members
}

// ssh logs in without k3lab, and returns everything that is printed.
func (l *lab) ssh(address, user string, options ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	args := slices.Concat([]string{"-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"},
		options, []string{"-l", user, address, "echo", "logged in"})
	out, err := exec.CommandContext(ctx, "ssh", args...).CombinedOutput()
	return string(out), err
}

const (
	platformSettings = "ansible/group_vars/all.yaml"
	authorizedKeys   = "/home/k3lab/.ssh/authorized_keys"
)

// operatingSystem changes settings of the operating system, mends drift, and
// reads each promise from the machines by other means than the converger's.
func operatingSystem(t *testing.T, l *lab) {
	key, public := newKey(t, "me@desk")
	_, byHand := newKey(t, "by hand")
	l.edit(platformSettings, "timezone: Etc/UTC", "timezone: Europe/Zurich\n  journald_max_mib: 200\n  banner: Authorized use only")
	l.edit(platformSettings, "public_keys: []", "public_keys: [\""+public+"\"]")
	l.script("agent-1", "echo '"+byHand+"' >>"+authorizedKeys+"; echo '/swapfile none swap sw 0 0' >>/etc/fstab; rm /etc/apt/apt.conf.d/60k3lab")

	var want []string
	for _, m := range l.machines() {
		want = append(want, m+": create file /etc/ssh/k3lab-banner", m+": reload unit ssh.service", m+": restart unit systemd-journald.service",
			m+": update authorized keys of k3lab", m+": update file /etc/ssh/sshd_config.d/00-k3lab.conf",
			m+": update file /etc/systemd/journald.conf.d/k3lab.conf", m+": update file /etc/timezone", m+": update link /etc/localtime")
	}
	want = append(want, "agent-1: create file /etc/apt/apt.conf.d/60k3lab", "agent-1: update swap", "workspace: update ssh key")
	slices.Sort(want)
	got := describe(l.plan(2))
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
	out := l.exit(0, "up", "--yes")
	if !strings.Contains(out, "agent-1: authorized keys of k3lab: left alone, put there by somebody else: SHA256:") {
		t.Errorf("the key put there by hand was not told:\n%s", out)
	}
	for _, m := range []string{"server-1", "agent-1"} {
		promises(t, l, m)
	}
	logins(t, l, key, byHand, public)
}

// promises reads a machine.
func promises(t *testing.T, l *lab, machine string) {
	t.Helper()
	unit := "k3s"
	if strings.HasPrefix(machine, "agent") {
		unit = "k3s-agent"
	}
	got := l.script(machine, `
echo "swap in fstab: $(findmnt --fstab --noheadings --types swap || true)"
echo "forwarding: $(sysctl -n net.ipv4.ip_forward)"
echo "open files: $(systemctl show -p LimitNOFILE --value `+unit+`)"
echo "zone: $(timedatectl show -p Timezone --value) $(TZ= date -d 2026-01-01T00:00Z +%H; unset TZ; date -d 2026-01-01T00:00Z +%H)" | tr '\n' ' '; echo
echo "journal: $(journalctl --flush --rotate; journalctl -b -t systemd-journald -o cat | grep -o 'System Journal.*max [^,]*' | tail -1 | grep -o 'max.*')"
echo "kept: $(journalctl --header | grep -c 'File path: /var/log/journal/')" | sed 's/: [1-9].*/: yes/'
echo "names: $(getent hosts server-1 agent-2 | awk '{print $NF}' | sort -u | xargs)"
echo "nfs: $(command -v mount.nfs)"
echo "reboots: $(apt-config shell x Unattended-Upgrade::Automatic-Reboot)"
echo "periodic: $(apt-config shell x APT::Periodic::Unattended-Upgrade y APT::Periodic::Update-Package-Lists | xargs)"
echo "timers: $(systemctl is-enabled apt-daily.timer apt-daily-upgrade.timer | xargs) $(systemctl is-active apt-daily.timer apt-daily-upgrade.timer | xargs)"
unattended-upgrade --dry-run --debug 2>&1 | grep -i '^Allowed origins' || true
/usr/sbin/sshd -T | grep -E '^(permitrootlogin|passwordauthentication|kbdinteractiveauthentication|maxauthtries|logingracetime|x11forwarding|allowtcpforwarding|banner|macs|ciphers|kexalgorithms) ' | sort
`)
	// OpenSSH 9.2 of Debian 12, and what it has by default.
	want := `swap in fstab: 
forwarding: 1
open files: 1048576
zone: Europe/Zurich 00 01 
journal: max 200.0M
kept: yes
names: agent-2 server-1
nfs: /usr/sbin/mount.nfs
reboots: x='false'
periodic: x=1 y=1
timers: enabled enabled active active
Allowed origins are: origin=Debian,codename=bookworm,label=Debian-Security, origin=Debian,codename=bookworm-security,label=Debian-Security, origin=Ubuntu,archive=bookworm-security
allowtcpforwarding local
banner /etc/ssh/k3lab-banner
ciphers chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com,aes256-gcm@openssh.com
kbdinteractiveauthentication no
kexalgorithms sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org,diffie-hellman-group16-sha512,diffie-hellman-group18-sha512
logingracetime 30
macs umac-128-etm@openssh.com,hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com
maxauthtries 4
passwordauthentication no
permitrootlogin no
x11forwarding no
`
	if d := cmp.Diff(want, withoutBanner(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", machine, d)
	}
}

// withoutBanner drops what sshd says before a login.
func withoutBanner(out string) string { return strings.TrimPrefix(out, "Authorized use only\n") }

// logins logs in with plain ssh, and takes a key away again.
func logins(t *testing.T, l *lab, key, byHand, public string) {
	t.Helper()
	const denied = "Permission denied (publickey)."
	address, own := l.address("agent-1"), filepath.Join(l.dir, ".k3lab/ssh/id_ed25519")
	if out, err := l.ssh(address, "k3lab", "-i", key); err != nil || !strings.Contains(out, "Authorized use only\n") {
		t.Errorf("with the key of the settings: %v\n%s", err, out)
	}
	if out, err := l.ssh(address, "root", "-i", own); err == nil || !strings.Contains(out, denied) {
		t.Errorf("as root: %v\n%s", err, out)
	}
	if out, err := l.ssh(address, "k3lab", "-o", "PubkeyAuthentication=no"); err == nil || !strings.Contains(out, denied) {
		t.Errorf("without a key: %v\n%s", err, out)
	}
	if out, err := l.ssh(address, "k3lab", "-i", own, "-o", "KexAlgorithms=diffie-hellman-group14-sha256"); err == nil || !strings.Contains(out, "no matching key exchange method found") {
		t.Errorf("with an old key exchange: %v\n%s", err, out)
	}
	l.edit(platformSettings, "public_keys: [\""+public+"\"]", "public_keys: []")
	want := []string{"workspace: update ssh key"}
	for _, m := range l.machines() {
		want = append(want, m+": update authorized keys of k3lab")
	}
	got := describe(l.plan(2))
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("plan without the key (-want +got):\n%s", d)
	}
	l.exit(0, "up", "--yes")
	if out, err := l.ssh(address, "k3lab", "-i", key); err == nil || !strings.Contains(out, denied) {
		t.Errorf("with the key that was taken away: %v\n%s", err, out)
	}
	if keys := l.script("agent-1", "cat "+authorizedKeys); !strings.Contains(keys, byHand) || strings.Count(keys, "ssh-ed25519") != 2 {
		t.Errorf("the key put there by hand and k3lab's own should be left:\n%s", keys)
	}
}

// lockOut makes k3lab's user another name of root, which only sshd's own default
// lets in. What k3lab makes of sshd would lock it out, and is put back.
func lockOut(t *testing.T, l *lab) {
	const (
		machine = "agent-2"
		dropIn  = "/etc/ssh/sshd_config.d/00-k3lab.conf"
	)
	root := `chown 0 /home/k3lab /home/k3lab/.ssh ` + authorizedKeys + `; sed -i "s/^k3lab:x:1000:/k3lab:x:0:/" /etc/passwd; rm ` + dropIn + `; systemctl reload ssh`
	user := `sed -i "s/^k3lab:x:0:/k3lab:x:1000:/" /etc/passwd; chown 1000 /home/k3lab /home/k3lab/.ssh ` + authorizedKeys
	l.script(machine, root)
	want := []string{machine + ": create file " + dropIn, machine + ": reload unit ssh.service"}
	if d := cmp.Diff(want, describe(l.plan(2))); d != "" {
		t.Fatalf("plan (-want +got):\n%s", d)
	}
	out := l.exit(4, "up", "--yes")
	if want := machine + ": after the change no new connection could be made, so the old state was put back: "; !strings.Contains(out, want) {
		t.Errorf("it does not say %q:\n%s", want, out)
	}
	got := l.script(machine, "ls /etc/ssh/sshd_config.d | xargs; /usr/sbin/sshd -T | grep ^permitrootlogin; "+user)
	if want := "\npermitrootlogin without-password\n"; withoutBanner(got) != want {
		t.Errorf("sshd has %q, want %q", got, want)
	}
	l.exit(0, "up", "--yes")
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan afterwards: %v", describe(changes))
	}
}

func newKey(t *testing.T, comment string) (file, public string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	text, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return file, string(bytes.TrimSpace(text))
}
