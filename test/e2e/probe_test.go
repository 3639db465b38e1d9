package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// probe is one attempt to reach something: tcp and udp with a port, icmp (a
// ping), vrrp (a packet of that protocol).
type probe struct {
	Proto string `json:"proto"`
	Port  int    `json:"port,omitempty"`
}

func (p probe) String() string {
	return strings.TrimSuffix(fmt.Sprintf("%s %d", p.Proto, p.Port), " 0")
}

// answering is what a probe met when it was let through: an answer, or the
// machine's own refusal. Nothing at all is what a firewall leaves.
func answering(result string) bool { return result == "answered" || result == "refused" }

// probeScript is run as root: "listen ADDRESS PROBES" opens what nothing has
// opened and answers, in the background; "try ADDRESS PROBES" makes all attempts
// at once and prints what each met; "end" ends the listeners.
const probeScript = `
import json, os, select, socket, struct, sys, threading, time
PID = "/run/k3lab-probe.pid"
VRRP = 112

def open_listener(address, p):
    if p["proto"] == "tcp":
        s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((address, p["port"])); s.listen(50); return s
    if p["proto"] == "udp":
        s = socket.socket(type=socket.SOCK_DGRAM); s.bind((address, p["port"])); return s
    if p["proto"] == "vrrp":
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, VRRP)

def listen(address, probes):
    listeners, taken = {}, []
    for p in probes:
        try:
            s = open_listener(address, p)
            if s: listeners[s] = p["proto"]
        except OSError:
            taken.append(p)
    if os.fork():
        print(json.dumps(taken)); return
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2): os.dup2(null, fd)
    open(PID, "w").write(str(os.getpid()))
    end = time.time() + 120
    while time.time() < end:
        for s in select.select(list(listeners), [], [], 1)[0]:
            if listeners[s] == "tcp":
                s.accept()[0].close()
            else:
                data, peer = s.recvfrom(2048)
                if data.endswith(b"probe"): s.sendto(b"answer", peer)

def attempt(address, p):
    try:
        if p["proto"] == "tcp":
            socket.create_connection((address, p["port"]), 2).close(); return "answered"
        if p["proto"] == "udp":
            s = socket.socket(type=socket.SOCK_DGRAM); s.connect((address, p["port"])); s.settimeout(2)
            s.send(b"probe"); s.recv(100); return "answered"
        kind = socket.IPPROTO_ICMP if p["proto"] == "icmp" else VRRP
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, kind); s.connect((address, 0)); s.settimeout(2)
        packet = b"probe"
        if p["proto"] == "icmp":
            packet = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xffff, 1)
            total = sum(struct.unpack("!4H", packet)); total = (total & 0xffff) + (total >> 16)
            packet = packet[:2] + struct.pack("!H", ~total & 0xffff) + packet[4:]
        s.send(packet)
        while True:
            data = s.recv(2048)[20:]
            if p["proto"] == "icmp" and data[0] == 0 or data == b"answer": return "answered"
    except ConnectionRefusedError:
        return "refused"
    except (socket.timeout, TimeoutError):
        return "nothing"
    except OSError as e:
        return str(e)

def attempts(address, probes):
    results = [""] * len(probes)
    def run(i): results[i] = attempt(address, probes[i])
    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(probes))]
    for t in threads: t.start()
    for t in threads: t.join()
    print(json.dumps(results))

if sys.argv[1] == "end":
    os.kill(int(open(PID).read()), 9); os.remove(PID)
else:
    {"listen": listen, "try": attempts}[sys.argv[1]](sys.argv[2], json.loads(bytes.fromhex(sys.argv[3])))
`

// place is where attempts are made from.
type place struct {
	machine   string // of the lab; empty: this computer
	namespace string // a network namespace there; empty: its own network
}

// python runs probeScript there.
func (l *lab) python(p place, args ...string) (string, error) {
	as := "python3 - " + strings.Join(args, " ")
	if p.namespace != "" {
		as = "ip netns exec " + p.namespace + " " + as
	}
	if p.machine != "" {
		as = "sudo " + as
	}
	line := "echo " + base64.StdEncoding.EncodeToString([]byte(probeScript)) + " | base64 -d | " + as
	if p.machine != "" {
		return l.run("-C", l.dir, "ssh", p.machine, "--", line)
	}
	out, err := exec.Command("sh", "-c", line).CombinedOutput()
	return string(out), err
}

func hexJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", text)
}
