package e2e

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// background is a command of k3lab that goes on.
type background struct {
	l    *lab
	mu   sync.Mutex
	out  strings.Builder
	done chan struct{}
	err  error
}

func (b *background) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.Write(p)
}

func (b *background) output() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.String()
}

// start runs k3lab in the workspace; it is ended with the test.
func (l *lab) start(args ...string) *background {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	b := &background{l: l, done: make(chan struct{})}
	cmd := l.command(ctx, append([]string{"-C", l.dir}, args...)...)
	cmd.Stdout, cmd.Stderr = b, b
	if err := cmd.Start(); err != nil {
		cancel()
		l.t.Fatal(err)
	}
	go func() {
		b.err = cmd.Wait()
		cancel()
		close(b.done)
	}()
	l.t.Cleanup(func() {
		cancel()
		<-b.done
	})
	return b
}

// says waits until the command has printed the text.
func (b *background) says(text string) {
	b.l.t.Helper()
	for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
		out := b.output()
		if strings.Contains(out, text) {
			return
		}
		select {
		case <-b.done:
			b.l.t.Fatalf("it ended (%v) without saying %q:\n%s", b.err, text, out)
		default:
		}
	}
}

// exit waits for the end of the command and checks its exit code.
func (b *background) exit(want int) string {
	b.l.t.Helper()
	<-b.done
	got := 0
	var e *exec.ExitError
	if errors.As(b.err, &e) {
		got = e.ExitCode()
	} else if b.err != nil {
		got = -1
	}
	if got != want {
		b.l.t.Fatalf("exit code %d, want %d\n%s", got, want, b.output())
	}
	return b.output()
}

// archive gives a machine a package archive of its own with one empty package:
// machines of the sandbox reach no other.
const archive = `
mkdir -p /srv/probe/k3lab-probe/DEBIAN
cd /srv/probe
printf "Package: k3lab-probe\nVersion: 1\nArchitecture: all\nMaintainer: k3lab <k3lab@example.org>\nDescription: nothing\n" >k3lab-probe/DEBIAN/control
dpkg-deb --build k3lab-probe k3lab-probe.deb >/dev/null
{ cat k3lab-probe/DEBIAN/control
  printf "Filename: ./k3lab-probe.deb\nSize: %s\nSHA256: %s\n" "$(stat -c %s k3lab-probe.deb)" "$(sha256sum k3lab-probe.deb | cut -d " " -f 1)"; } >Packages
echo "deb [trusted=yes] file:/srv/probe ./" >/etc/apt/sources.list
apt-get update -qq
`

// hold has a process hold apt's lock, as an upgrade that goes on does.
const hold = `systemd-run --quiet --unit=upgrade-that-goes-on --service-type=notify --property=NotifyAccess=all python3 -c '
import fcntl, subprocess, time
f = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(f, fcntl.LOCK_EX)
subprocess.run(["systemd-notify", "--ready"], check=True)
time.sleep(600)'`

const waiting = "agent-1: packages: waiting for the package manager, held by process "

// packages: an upgrade that goes on is waited for; a converger that is killed and
// a machine that reboots meanwhile are told, the others finish, and running again
// completes. A package nobody has fails alone.
func packages(t *testing.T, l *lab) {
	l.everywhere(archive)
	l.edit(platformSettings, "packages: []", "packages: [k3lab-probe]")
	l.script("agent-1", hold)

	up := l.start("up", "--yes")
	up.says(waiting)
	l.script("agent-1", `kill -9 $(pgrep -f "^/var/lib/k3lab/converger/[0-9a-f]* apply")`)
	out := up.exit(1)
	if want := "agent-1: the converger was ended by signal KILL"; !strings.Contains(out, want) {
		t.Errorf("it does not say %q:\n%s", want, out)
	}
	installed(t, l, "agent-1")

	up = l.start("up", "--yes")
	up.says(waiting)
	newProxmox(t, l.sandbox()).power("agent-1", "reboot", "running")
	out = up.exit(4)
	if want := "agent-1: it was interrupted, as by a reboot: ssh: connection lost: "; !strings.Contains(out, want) {
		t.Errorf("it does not say %q:\n%s", want, out)
	}

	l.exit(0, "up", "--yes")
	installed(t, l, "")

	l.everywhere("apt-get purge -qqy k3lab-probe")
	l.edit(platformSettings, "packages: [k3lab-probe]", "packages: [k3lab-nowhere, k3lab-probe]")
	out = l.exit(1, "up", "--yes")
	for _, m := range l.machines() {
		want := m + ": package k3lab-nowhere: apt knows no such package: correct the name in os.packages"
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	installed(t, l, "")
	l.edit(platformSettings, "packages: [k3lab-nowhere, k3lab-probe]", "packages: [k3lab-probe]")
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan with the name corrected: %v", describe(changes))
	}
	// A machine that is made anew has no such archive.
	l.edit(platformSettings, "packages: [k3lab-probe]", "packages: []")
}

// installed checks that all machines but one have the package.
func installed(t *testing.T, l *lab, but string) {
	t.Helper()
	for m, got := range l.everywhere(`dpkg-query -W -f '${db:Status-Abbrev}' k3lab-probe 2>/dev/null || true`) {
		if has := strings.HasPrefix(got, "ii"); has != (m != but) {
			t.Errorf("%s: k3lab-probe is %q", m, got)
		}
	}
}
