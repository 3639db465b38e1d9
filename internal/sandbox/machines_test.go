//go:build linux

package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/sandbox/machine"
)

// TestMachines lives through the life of one sandbox, phase by phase.
func TestMachines(t *testing.T) {
	needRoot(t)
	t.Setenv("K3LAB_SANDBOX_DIR", t.TempDir())
	leavesNothing(t, "test-life")
	o := options("test-life")
	o.ImagesDir = t.TempDir()
	if err := os.WriteFile(filepath.Join(o.ImagesDir, "some.tar"), []byte("an image"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := up(t, o)
	for id := 201; id <= 205; id++ {
		l.create(id)
	}
	phases := []struct {
		name string
		run  func(*testing.T, *lab)
	}{
		{"five machines boot at once", bootFive},
		{"a machine is what its VM says", describesItself},
		{"machines see each other and no further", reach},
		{"files outlive restarts, power cuts and resets", restarts},
		{"one answer for the VIP of a machine killed and started", oneAnswer},
		{"snapshots hold what was", snapshots},
		{"a clone is a machine of its own", clones},
		{"a resized disk is a larger file system, and can be full", resizes},
		{"machines outlive the API's daemon", daemonDies},
		{"a machine that powers itself off is stopped", powersOff},
		{"up again changes nothing", upAgain},
	}
	for _, p := range phases {
		if !t.Run(p.name, func(t *testing.T) {
			l.t = t
			p.run(t, l)
		}) {
			break // later phases build on this one
		}
	}
}

func bootFive(t *testing.T, l *lab) {
	start := time.Now()
	var wg sync.WaitGroup
	for id := 201; id <= 205; id++ {
		wg.Go(func() {
			l.power(id, "start")
			l.dial(id).Close()
			t.Logf("machine %d answers ssh after %v", id, time.Since(start).Round(time.Millisecond))
		})
	}
	wg.Wait()
	for id := 201; id <= 205; id++ {
		wants(t, "state", l.run(id, "systemctl is-system-running --wait"), "running")
	}
}

func describesItself(t *testing.T, l *lab) {
	wants(t, "hostname", l.run(201, "hostname"), "node-201")
	wants(t, "user and sudo", l.run(201, "id -un; sudo -n id -un"), "k3lab\nroot")
	wants(t, "address", l.run(201, "ip -o -4 address show eth0 | awk '{print $4}'"), l.ip(201)+"/24")
	wants(t, "hardware address", l.run(201, "cat /sys/class/net/eth0/address"), "bc:24:11:00:00:01")
	wants(t, "route", l.run(201, "ip route show default"), "default via "+l.info.Gateway+" dev eth0")
	wants(t, "disk", l.run(201, "df --output=size -BG / | tail -1 | tr -d ' '"), "8G")
	wants(t, "container images", l.run(201, "sudo cat /var/lib/rancher/k3s/agent/images/some.tar"), "an image")
	wants(t, "failed units", l.run(201, "systemctl --failed --no-legend"), "")
	wants(t, "keepalived", l.run(201, "systemctl is-enabled keepalived || :"), "disabled")
	if a, b := l.run(201, "cat /etc/machine-id"), l.run(202, "cat /etc/machine-id"); a == b || len(a) != 32 {
		t.Errorf("machine ids %q and %q", a, b)
	}
	if a, b := l.run(201, "cat /etc/ssh/ssh_host_ed25519_key.pub"), l.run(202, "cat /etc/ssh/ssh_host_ed25519_key.pub"); a == b {
		t.Error("two machines have the same host key")
	}
}

func reach(t *testing.T, l *lab) {
	l.run(201, "ping -c 1 -W 2 "+l.ip(202))
	l.run(201, "ping -c 1 -W 2 "+l.info.Computer)
	// Not even with a route of its own making.
	out := l.run(201, "curl -sS -m 3 http://192.0.2.1 2>&1 || :; sudo ip route add 192.0.2.0/24 via "+l.info.Gateway+"; ping -c 1 -W 1 192.0.2.1 || :; sudo ip route del 192.0.2.0/24")
	if strings.Contains(out, "1 received") || !strings.Contains(out, "Unreachable") {
		t.Errorf("beyond the computer: %s", out)
	}
	wants(t, "kernel settings", l.run(201, "sudo sh -c 'echo 99 >/proc/sys/kernel/panic' 2>/dev/null || echo refused"), "refused")
}

func restarts(t *testing.T, l *lab) {
	l.run(201, "echo kept | sudo tee /etc/kept /var/lib/rancher/kept >/dev/null; sudo sync")
	key := l.run(201, "cat /etc/ssh/ssh_host_ed25519_key.pub")
	boot := l.run(201, "cat /proc/sys/kernel/random/boot_id")
	for _, action := range []string{"reboot", "reset", "stop", "shutdown"} {
		start := time.Now()
		l.power(201, action)
		if action == "stop" || action == "shutdown" {
			wants(t, "status after "+action, l.status(201), "stopped")
			l.power(201, "start")
		}
		wants(t, "files after "+action, l.run(201, "cat /etc/kept /var/lib/rancher/kept"), "kept\nkept")
		wants(t, "host key after "+action, l.run(201, "cat /etc/ssh/ssh_host_ed25519_key.pub"), key)
		now := l.run(201, "cat /proc/sys/kernel/random/boot_id")
		if now == boot {
			t.Errorf("%s did not boot the machine anew", action)
		}
		boot = now
		t.Logf("%s: back after %v", action, time.Since(start).Round(time.Millisecond))
	}
	// What cloud-init is asked for is there after the next start.
	l.call("PUT", "/nodes/pve1/qemu/201/config", map[string][]string{"name": {"renamed"}, "nameserver": {"192.0.2.53"}, "searchdomain": {"lab.internal"}})
	l.power(201, "reboot")
	wants(t, "new fields", l.run(201, "hostname; cat /etc/resolv.conf"), "renamed\nsearch lab.internal\nnameserver 192.0.2.53")
	wants(t, "host key with new fields", l.run(201, "cat /etc/ssh/ssh_host_ed25519_key.pub"), key)
	boot = l.run(201, "cat /proc/sys/kernel/random/boot_id")
	// The machine may also reboot itself.
	c := l.dial(201)
	if s, err := c.NewSession(); err == nil {
		_ = s.Run("sudo systemctl reboot") // cut off in mid-sentence
	}
	c.Close()
	for deadline := time.Now().Add(20 * time.Second); l.run(201, "cat /proc/sys/kernel/random/boot_id") == boot; {
		if time.Now().After(deadline) {
			t.Fatal("systemctl reboot did not reboot the machine")
		}
	}
	wants(t, "files after systemctl reboot", l.run(201, "cat /etc/kept"), "kept")
}

// oneAnswer lets two machines share an address by keepalived, cuts the power
// of the one that holds it, and starts it again.
func oneAnswer(t *testing.T, l *lab) {
	vip := l.info.Free.VIP
	for i, id := range []int{202, 203} {
		config := fmt.Sprintf(`vrrp_instance api {
    state BACKUP
    interface eth0
    virtual_router_id 51
    priority %d
    advert_int 1
    nopreempt
    unicast_src_ip %s
    unicast_peer { %s }
    virtual_ipaddress { %s/24 }
}`, 100-i, l.ip(id), l.ip([]int{203, 202}[i]), vip)
		l.run(id, "sudo tee /etc/keepalived/keepalived.conf >/dev/null <<'EOF'\n"+config+"\nEOF\nsudo systemctl enable --now keepalived")
	}
	const holds = "ip -o address show eth0 | grep -c "
	await(t, "machine 202 or 203 holds the VIP", func() bool {
		return l.run(202, holds+vip+"/ || :")+l.run(203, holds+vip+"/ || :") != "00"
	})
	holder, other := 202, 203
	if l.run(203, holds+vip+"/ || :") == "1" {
		holder, other = 203, 202
	}
	answers := func() string {
		out := l.run(204, "sudo arping -c 3 -w 5 -I eth0 "+vip+" | grep -oE '\\[[0-9A-F:]+\\]' | sort -u || :")
		return strings.ToLower(strings.NewReplacer("[", "", "]", "", "\n", " ").Replace(out))
	}
	mac := func(id int) string { return fmt.Sprintf("bc:24:11:00:00:%02x", id-200) }
	wants(t, "answers for the VIP", answers(), mac(holder))

	start := time.Now()
	l.power(holder, "stop")
	await(t, "the VIP moves", func() bool { return l.run(other, holds+vip+"/ || :") == "1" })
	t.Logf("VIP moved %v after the power cut", time.Since(start).Round(time.Millisecond))
	wants(t, "answers after the power cut", answers(), mac(other))
	l.power(holder, "start")
	l.dial(holder).Close()
	await(t, "keepalived runs again", func() bool { return l.run(holder, "systemctl is-active keepalived || :") == "active" })
	wants(t, "answers after the restart", answers(), mac(other))
	for _, id := range []int{202, 203} {
		l.run(id, "sudo systemctl disable --now keepalived")
	}
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	within(t, 20*time.Second, what, done)
}

func within(t *testing.T, limit time.Duration, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func snapshots(t *testing.T, l *lab) {
	path := "/nodes/pve1/qemu/202/snapshot"
	l.run(202, "echo before | sudo tee /etc/snapped")
	l.task("POST", path, map[string][]string{"snapname": {"first"}})
	l.run(202, "echo after | sudo tee /etc/snapped") // it was thawed, or this would hang
	l.power(202, "stop")
	l.task("POST", path+"/first/rollback", nil)
	if l.status(202) == "stopped" {
		l.power(202, "start")
	}
	wants(t, "file after rollback", l.run(202, "cat /etc/snapped"), "before")
	l.task("DELETE", path+"/first", nil)
}

func clones(t *testing.T, l *lab) {
	l.run(203, "echo copied | sudo tee /etc/copied; sudo sync")
	l.power(203, "shutdown")
	l.task("POST", "/nodes/pve1/qemu/203/clone", map[string][]string{"newid": {"206"}, "name": {"node-206"}, "full": {"1"}})
	l.task("PUT", "/nodes/pve1/qemu/206/config", map[string][]string{"ipconfig0": {"ip=" + l.ip(206) + "/24,gw=" + l.info.Gateway}})
	l.power(203, "start")
	l.power(206, "start")
	wants(t, "file of the clone", l.run(206, "cat /etc/copied; hostname"), "copied\nnode-206")
	for _, file := range []string{"/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub"} {
		if a, b := l.run(203, "cat "+file), l.run(206, "cat "+file); a == b {
			t.Errorf("%s of the clone is that of the original", file)
		}
	}
	l.power(206, "stop")
	l.task("DELETE", "/nodes/pve1/qemu/206", nil)
}

func resizes(t *testing.T, l *lab) {
	l.power(204, "stop")
	l.task("PUT", "/nodes/pve1/qemu/204/resize", map[string][]string{"disk": {"scsi0"}, "size": {"9G"}})
	l.call("PUT", "/nodes/pve1/qemu/204/config", map[string][]string{"scsi1": {"local-lvm:1,serial=DATA01"}})
	l.power(204, "start")
	wants(t, "file system", l.run(204, "df --output=size -BG / | tail -1 | tr -d ' '"), "9G")
	wants(t, "extra disk", l.run(204, "sudo mkfs.ext4 -q /dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_DATA01 && sudo mount /dev/sdb /mnt && findmnt -no FSTYPE /mnt"), "ext4")
	wants(t, "full", l.run(204, "sudo fallocate -l 20G /var/lib/rancher/fill 2>&1 | grep -o 'No space left on device'; sudo rm -f /var/lib/rancher/fill"), "No space left on device")
	// A machine whose disk is full still boots, so that it can be seen to.
	l.run(204, `sudo sh -c 'cd /var/lib/rancher; fallocate -l $(($(df --output=avail -B1 . | tail -1) - 4000000)) fill; cat /dev/zero >rest 2>/dev/null; sync'; true`)
	wants(t, "a full disk", l.run(204, "sudo sh -c 'seq 100000 >/etc/more' 2>&1 | grep -o 'No space left on device'"), "No space left on device")
	l.power(204, "reset")
	wants(t, "with a full disk", l.run(204, "sudo rm /var/lib/rancher/fill /var/lib/rancher/rest && echo mended"), "mended")
}

func daemonDies(t *testing.T, l *lab) {
	boot := l.run(201, "cat /proc/sys/kernel/random/boot_id")
	endpoint := l.info.Endpoint
	if err := unix.Kill(l.info.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "the daemon is gone", func() bool { _, err := machine.FindProcess(l.info.PID); return err != nil })
	wants(t, "the same boot without the daemon", l.run(201, "cat /proc/sys/kernel/random/boot_id"), boot)
	s, err := Status(t.Context(), "test-life")
	if err != nil {
		t.Fatal(err)
	}
	if s.Answers || s.PID != 0 {
		t.Errorf("status of a dead daemon: %+v", s)
	}
	info, err := Up(t.Context(), options("test-life"), report.Discard)
	if err != nil {
		t.Fatal(err)
	}
	l.info = info
	wants(t, "endpoint", info.Endpoint, endpoint)
	wants(t, "status", l.status(201), "running")
	wants(t, "the same boot with a new daemon", l.run(201, "cat /proc/sys/kernel/random/boot_id"), boot)
	l.power(201, "shutdown")
	wants(t, "status", l.status(201), "stopped")
	l.power(201, "start")
}

func powersOff(t *testing.T, l *lab) {
	c := l.dial(205)
	if s, err := c.NewSession(); err == nil {
		_ = s.Run("sudo systemctl poweroff") // cut off in mid-sentence
	}
	c.Close()
	await(t, "machine 205 is off", func() bool { return l.status(205) == "stopped" })
	l.power(205, "start")
	l.dial(205).Close()
}

func upAgain(t *testing.T, l *lab) {
	start := time.Now()
	info, err := Up(t.Context(), options("test-life"), report.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("up again: %v", time.Since(start).Round(time.Millisecond))
	if info.PID != l.info.PID || info.Endpoint != l.info.Endpoint {
		t.Errorf("another daemon: %d at %s, was %d at %s", info.PID, info.Endpoint, l.info.PID, l.info.Endpoint)
	}
	other := options("test-life")
	other.Hypervisors = 5
	_, err = Up(t.Context(), other, report.Discard)
	wants(t, "other options", fmt.Sprint(err), "sandbox test-life: is there already with hypervisors 2, not 5 (try: k3lab sandbox down test-life)")
	if st, err := os.Stat(info.CAFile[:strings.Index(info.CAFile, "/api/")] + "/sandbox.json"); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("sandbox.json: %v %v", st.Mode(), err)
	}
}
