package e2e

import (
	"encoding/base64"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// speakScript announces virtual addresses with the IDs given, VRRP those with v,
// CARP those with c before them.
const speakScript = `
import socket, struct, sys, time
def checked(p):
    total = sum(struct.unpack("!%dH" % (len(p) // 2), p)); total = (total & 0xffff) + (total >> 16)
    return p[:6] + struct.pack("!H", ~(total + (total >> 16)) & 0xffff) + p[8:]
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[1]))
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
while True:
    for who in sys.argv[2:]:
        id = int(who[1:])
        if who[0] == "v":
            p = struct.pack("!BBBBBBH4s8x", 0x21, id, 100, 1, 0, 1, 0, socket.inet_aton("192.0.2.1"))
        else:
            p = struct.pack("!BBBBBBHQ20x", 0x21, id, 0, 7, 0, 1, 0, 1)
        s.sendto(checked(p), ("224.0.0.18", 0))
    time.sleep(1)
`

// claimsHold proves that servers take neither a VRRP ID nor an address that
// somebody else in the network has. That is agent-1 here: it may have neither.
func claimsHold(t *testing.T, l *lab) {
	path := filepath.Join(l.dir, "terraform/vars/network.yaml")
	before := readFile(t, path)
	stranger, vip := l.addressOf(t, "agent-1"), vipOf(t, l).String()
	withID := func(id string) {
		writeFile(t, path, regexp.MustCompile(`(?m)^vrrp_id:.*\n`).ReplaceAllString(before, "")+"vrrp_id: "+id+"\n")
	}
	ids := func() string {
		var out string
		for _, s := range []string{"server-1", "server-2", "server-3"} {
			out += strings.TrimSpace(l.onMachine(s, "grep", "virtual_router_id", "/etc/keepalived/keepalived.conf")) + " "
		}
		return out
	}
	was := ids()
	refused := func(message string) {
		t.Helper()
		out := l.exit(1, "up", "--yes")
		for _, s := range []string{"server-1", "server-2", "server-3"} {
			if want := s + ": file /etc/keepalived/keepalived.conf: " + message; !strings.Contains(out, want) {
				t.Errorf("not said: %s\n%s", want, out)
			}
		}
		if now := ids(); now != was {
			t.Errorf("keepalived was changed: %s, was %s", now, was)
		}
	}

	l.shell("agent-1", "echo "+base64.StdEncoding.EncodeToString([]byte(speakScript))+" | base64 -d | sudo tee /run/speak.py >/dev/null; "+
		"sudo systemd-run --quiet --unit=speak python3 /run/speak.py "+stranger+" v77 c78")
	withID("77")
	refused(stranger + " uses VRRP ID 77 in this network already; set vrrp_id in terraform/vars/network.yaml to another, such as 79")
	withID("78")
	refused(stranger + " uses CARP ID 78 in this network already; set vrrp_id in terraform/vars/network.yaml to another, such as 79")
	l.onMachine("agent-1", "systemctl", "stop", "speak")

	device := strings.Fields(l.onMachine("agent-1", "ip", "-o", "route", "get", "192.0.2.1"))[4]
	station := strings.TrimSpace(l.onMachine("agent-1", "cat", "/sys/class/net/"+device+"/address"))
	l.onMachine("agent-1", "ip", "addr", "add", vip+"/32", "dev", device)
	refused("another machine has the address " + vip + " already, with the hardware address " + station +
		"; take it from that machine, or set vip in terraform/vars/network.yaml to a free one")
	l.onMachine("agent-1", "ip", "addr", "del", vip+"/32", "dev", device)

	l.exit(0, "up", "--yes") // the servers' own adverts and answers are no hindrance
	if now := ids(); strings.Count(now, "virtual_router_id 78") != 3 {
		t.Errorf("keepalived has %s", now)
	}
	writeFile(t, path, before)
	l.exit(0, "up", "--yes")
	whole(t, l)
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan: %v", describe(changes))
	}
}
