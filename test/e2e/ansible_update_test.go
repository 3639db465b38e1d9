package e2e

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// newer gives a machine an archive of its own: machines of the sandbox reach no
// other. archiveOf has it hold a package in a newer version than is installed,
// which asks for a reboot.
const newer = `
mkdir -p /srv/newer; cd /srv/newer; touch Packages
: >/etc/apt/sources.list
echo "deb [trusted=yes] file:/srv/newer ./" >/etc/apt/sources.list.d/newer.list
`

const archiveOf = `
cd /srv/newer
for version in 1 2; do
  mkdir -p k3lab-newer/DEBIAN
  printf "Package: k3lab-newer\nVersion: $version\nArchitecture: all\nMaintainer: k3lab <k3lab@example.org>\nDescription: nothing\n" >k3lab-newer/DEBIAN/control
  [ $version = 1 ] || printf "#!/bin/sh\ntouch /run/reboot-required\necho k3lab-newer >>/run/reboot-required.pkgs\n" >k3lab-newer/DEBIAN/postinst
  [ $version = 1 ] || chmod 0755 k3lab-newer/DEBIAN/postinst
  dpkg-deb --build k3lab-newer k3lab-newer-$version.deb >/dev/null
done
dpkg --install k3lab-newer-1.deb >/dev/null
{ cat k3lab-newer/DEBIAN/control
  printf "Filename: ./k3lab-newer-2.deb\nSize: %s\nSHA256: %s\n" "$(stat -c %s k3lab-newer-2.deb)" "$(sha256sum k3lab-newer-2.deb | cut -d " " -f 1)"; } >Packages
`

const installedAndBooted = `dpkg-query -W -f '${Version} ' k3lab-newer 2>/dev/null || printf -- "- "; cat /proc/sys/kernel/random/boot_id`

// machinesAreUpdated: an agent and a server have a newer package that asks for a
// reboot. Ansible shows that and changes nothing; then these two are updated and
// booted anew, and no other. A node that somebody has cordoned stays so. Pods that
// a disruption budget keeps end the roll, which the next one goes on with.
func machinesAreUpdated(t *testing.T, l *lab) {
	l.everywhere(newer)
	for _, m := range []string{"agent-2", "server-3"} {
		l.script(m, archiveOf)
	}
	l.onMachine("server-1", "kubectl", "cordon", "server-3")
	before := l.everywhere(installedAndBooted)

	check := l.playbook(t, "update-os.yaml", "--check", "--diff")
	want := map[string]string{"server-1": "0 0 0", "server-2": "0 0 0", "server-3": "1 0 0", "agent-1": "0 0 0", "agent-2": "1 0 0"}
	if d := cmp.Diff(want, recapOf(check)); d != "" {
		t.Errorf("--check: changed, unreachable, failed (-want +got):\n%s", d)
	}
	if text := "--- before: agent-2: update packages: 1 to a newer version\n+++ after: agent-2: update packages: 1 to a newer version\n@@ -1 +1 @@\n-k3lab-newer 1\n+k3lab-newer 2\n"; !strings.Contains(check, text) {
		t.Errorf("--check --diff does not show\n%s\nbut\n%s", text, check)
	}
	if d := cmp.Diff(before, l.everywhere(installedAndBooted)); d != "" {
		t.Errorf("--check has changed (-before +after):\n%s", d)
	}

	out := l.playbook(t, "update-os.yaml")
	if d := cmp.Diff(want, recapOf(out)); d != "" {
		t.Errorf("changed, unreachable, failed (-want +got):\n%s\n%s", d, out)
	}
	whole(t, l)
	after := l.everywhere(installedAndBooted)
	for m, was := range before {
		version, boot, _ := strings.Cut(after[m], " ")
		_, booted, _ := strings.Cut(was, " ")
		updated := want[m] == "1 0 0"
		if updated != (version == "2") || updated == (boot == booted) {
			t.Errorf("%s: was %q and is %q", m, was, after[m])
		}
	}
	if got := cordoned(l); got != "server-3" {
		t.Errorf("cordoned is %q, but only server-3 was, by hand\n%s", got, out)
	}
	l.onMachine("server-1", "kubectl", "uncordon", "server-3")
	budgetKeeps(t, l)
}

// budgetKeeps plays a roll that a disruption budget ends.
func budgetKeeps(t *testing.T, l *lab) {
	bringImages(t, l, nodes...)
	l.onMachine("server-1", "kubectl", "create", "deployment", "web", "--image=rancher/mirrored-pause:3.10.2")
	l.onMachine("server-1", "kubectl", "create", "pdb", "web", "--selector=app=web", "--min-available=1")
	l.onMachine("server-1", "kubectl", "wait", "--for=condition=Available", "deployment/web", "--timeout=60s")
	node := strings.TrimSpace(withoutBanner(l.onMachine("server-1", "kubectl", "get", "pods", "--selector=app=web", "-o", "jsonpath={.items[0].spec.nodeName}")))
	l.onMachine(node, "touch", "/run/reboot-required")
	out := l.exit(1, "os", "update", "--yes", "--node", node, "--drain-timeout", "3s")
	for _, want := range []string{"is kept by the disruption budget default/web, which wants 1 of its pods healthy, and 1 are", node + " stays cordoned."} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	if got := cordoned(l); got != node {
		t.Errorf("cordoned is %q, want %s", got, node)
	}
	l.onMachine("server-1", "kubectl", "delete", "pdb", "web")
	l.exit(0, "os", "update", "--yes")
	if got := cordoned(l); got != "" {
		t.Errorf("still cordoned: %q", got)
	}
	l.onMachine("server-1", "kubectl", "delete", "deployment", "web")
	whole(t, l)
}

// cordoned are the nodes that take no pods.
func cordoned(l *lab) string {
	out := l.onMachine("server-1", "kubectl", "get", "nodes", "--field-selector=spec.unschedulable=true", "-o", "name")
	return strings.ReplaceAll(strings.Join(strings.Fields(withoutBanner(out)), " "), "node/", "")
}
