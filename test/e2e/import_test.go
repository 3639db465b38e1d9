package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// byHand is a cluster that somebody has installed without k3lab: VMs made in
// Proxmox, K3s as its install script sets it up.
type byHand struct {
	*lab
	t   *testing.T
	api *proxmox
	net string // the first three bytes of the machines' network
	key string // private key
}

// byHandNode is a machine of such a cluster.
type byHandNode struct {
	name string
	vmid int
	ip   string // its last byte
	unit string
}

var byHandNodes = []byHandNode{
	{"alpha", 301, "31", "k3s"}, {"beta", 302, "32", "k3s-agent"}, {"gamma", 303, "33", "k3s"}, {"delta", 304, "34", "k3s"},
}

// TestImport takes over a cluster that was there before, and then one part of it.
func TestImport(t *testing.T) {
	h := newByHand(t, "k3lab-import")
	for _, n := range byHandNodes {
		h.vm(n.name, n.vmid, n.ip)
	}
	first := "K3S_TOKEN='handmade'\nK3S_URL='https://" + h.net + ".31:6443'"
	h.k3s("31", "k3s", "K3S_TOKEN='handmade'", "server", "--cluster-init", "--disable", "traefik", "--write-kubeconfig-mode", "644", "--tls-san", "k3s.home.arpa")
	h.up(byHandNodes[0])
	h.k3s("32", "k3s-agent", first, "agent", "--node-label", "disk=ssd")
	for _, ip := range []string{"33", "34"} { // one after the other, as etcd takes learners
		h.k3s(ip, "k3s", first, "server", "--disable", "traefik", "--write-kubeconfig-mode", "644", "--tls-san", "k3s.home.arpa")
	}
	for _, n := range byHandNodes {
		h.up(n)
	}
	eventually(t, time.Minute, "all nodes are ready", func() bool {
		out, err := exec.Command("ssh", h.login("31", "sudo", "k3s", "kubectl", "get", "nodes", "--no-headers")...).Output()
		return err == nil && strings.Count(string(out), " Ready ") == len(byHandNodes)
	})
	before := h.state()
	s := h.sandbox()
	server := "ops@" + h.net + ".31"
	flags := []string{"import", h.dir, "--server", server, "--proxmox-endpoint", s.URL, "--proxmox-ca", s.CAFile}
	out, err := h.run(flags...)
	if err == nil || !strings.Contains(out, "its SSH host key is not known yet: ssh-ed25519 SHA256:") {
		t.Fatalf("a host key nobody has accepted: %v\n%s", err, out)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(h.dir), "*")); len(left) != 0 {
		t.Errorf("an import that failed left %v", left)
	}
	h.ok(append(flags, "--accept-host-keys")...)
	if strings.Contains(h.said.String(), "handmade") {
		t.Error("the token was printed")
	}

	var planned []string
	for _, c := range h.plan(2) {
		planned = append(planned, strings.TrimSpace(c.Object+": "+c.Action+" "+c.Resource+c.Deferred))
	}
	slices.Sort(planned)
	want := []string{
		"alpha: update", "beta: update", "delta: update", "gamma: update", "home: create pool", "this workspace: create file .k3lab/kubeconfig",
		"workspace: create ansible/inventory/hosts.ini", "workspace: create output machines",
		"workspace: create output ssh_fingerprint", "workspace: create ssh key",
	}
	if d := cmp.Diff(want, planned); d != "" {
		t.Errorf("first plan (-want +got):\n%s", d)
	}
	h.exit(0, "up", "--yes")
	if d := cmp.Diff(before, h.state()); d != "" {
		t.Errorf("the first up changed the machines (-before +after):\n%s", d)
	}
	if changes := h.plan(0); len(changes) != 0 {
		t.Errorf("plan after it: %v", describe(changes))
	}
	if out := h.exit(0, "status"); !strings.Contains(out, "3 of 3 servers vote, 4 of 4 nodes ready") {
		t.Errorf("status:\n%s", out)
	}
	h.oneFeature(before)
	h.notDestroyed(h.state())
}

// up waits until K3s is up on a machine.
func (h *byHand) up(n byHandNode) {
	h.t.Helper()
	eventually(h.t, 3*time.Minute, "K3s is up on "+n.name, func() bool {
		return exec.Command("ssh", h.login(n.ip, "systemctl", "is-active", "--quiet", n.unit)...).Run() == nil
	})
}

// notDestroyed has the lab destroyed: not the machines, which were there before it.
func (h *byHand) notDestroyed(before map[string]string) {
	out := h.exit(3, "destroy", "--name", filepath.Base(h.dir))
	for _, n := range byHandNodes {
		if want := n.name + ": k3lab did not make this VM and does not destroy it"; !strings.Contains(out, want) {
			h.t.Errorf("%q is not said:\n%s", want, out)
		}
	}
	if d := cmp.Diff(before, h.state()); d != "" {
		h.t.Errorf("a destroy that was refused changed machines (-before +after):\n%s", d)
	}
}

// oneFeature has the firewall managed: it comes, and K3s goes on as it was.
func (h *byHand) oneFeature(before map[string]string) {
	h.edit(platformSettings, "manage: []", "manage: [firewall]")
	for _, c := range h.plan(2) {
		if c.Layer != "platform" || strings.Contains(c.Resource, "k3s") || c.Action == "restart" {
			h.t.Errorf("with the firewall managed, plan has %+v", c)
		}
	}
	h.exit(0, "up", "--yes")
	h.onMachine("beta", "nft", "list", "table", "inet", "k3lab")
	after := h.state()
	for key, was := range before {
		if after[key] != was {
			h.t.Errorf("%s: %s, was %s", key, after[key], was)
		}
	}
	if changes := h.plan(0); len(changes) != 0 {
		h.t.Errorf("plan after the firewall: %v", describe(changes))
	}
}

func newByHand(t *testing.T, name string) *byHand {
	t.Helper()
	l := newSandbox(t, name)
	s := l.sandbox()
	l.env = append(l.env, "SSH_AUTH_SOCK=", "K3LAB_PROXMOX_TOKEN="+s.Token)
	h := &byHand{lab: l, t: t, api: newProxmox(t, s), net: s.CIDR[:strings.LastIndex(s.CIDR, ".")], key: filepath.Join(l.home(), ".ssh", "id_ed25519")}
	if err := os.MkdirAll(filepath.Dir(h.key), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", h.key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	h.task("/nodes/pve1/storage/local/download-url", "content", "import", "filename", "image.qcow2", "url", "https://images.example.org/image.qcow2")
	return h
}

// task posts a form and waits for the task it starts.
func (h *byHand) task(path string, form ...string) {
	h.t.Helper()
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	method := http.MethodPost
	if strings.HasSuffix(path, "/resize") {
		method = http.MethodPut
	}
	var upid string
	h.api.call(method, path+"?"+values.Encode(), &upid)
	eventually(h.t, time.Minute, path, func() bool {
		var status struct{ Status, Exitstatus string }
		h.api.call("GET", "/nodes/pve1/tasks/"+upid+"/status", &status)
		if status.Status == "stopped" && status.Exitstatus != "OK" {
			h.t.Fatalf("%s: %s", path, status.Exitstatus)
		}
		return status.Status == "stopped"
	})
}

// vm makes a VM as people do: with what k3lab would not have chosen.
func (h *byHand) vm(name string, id int, ip string) {
	h.t.Helper()
	public, err := os.ReadFile(h.key + ".pub")
	if err != nil {
		h.t.Fatal(err)
	}
	h.task("/nodes/pve1/qemu", "vmid", itoa(id), "name", name, "cores", "2", "memory", "3072", "cpu", "host", "scsihw", "virtio-scsi-pci",
		"scsi0", "local-lvm:0,import-from=local:import/image.qcow2", "ide2", "local-lvm:cloudinit", "net0", "virtio,bridge=vmbr0,firewall=1",
		"ciuser", "ops", "sshkeys", url.PathEscape(string(public)), "ipconfig0", "ip="+h.net+"."+ip+"/24,gw="+h.net+".1",
		"boot", "order=scsi0", "tags", "mine", "description", "made by hand", "tablet", "0")
	h.task(fmt.Sprintf("/nodes/pve1/qemu/%d/resize", id), "disk", "scsi0", "size", "20G")
	h.task(fmt.Sprintf("/nodes/pve1/qemu/%d/status/start", id))
}

func (h *byHand) login(ip string, command ...string) []string {
	return append([]string{
		"-i", h.key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
		"-o", "IdentityAgent=none", "ops@" + h.net + "." + ip, "--",
	}, command...)
}

// script runs a script as root on a machine.
func (h *byHand) script(ip, text string, stdin []byte) string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", h.login(ip, "sudo", "sh", "-c", "'"+text+"'")...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s: %s: %v\n%s", ip, text, err, out)
	}
	return string(out)
}

// k3s installs K3s as its install script does: flags in the unit, the token in a
// file of variables.
func (h *byHand) k3s(ip, unit, variables string, args ...string) {
	h.t.Helper()
	eventually(h.t, time.Minute, ip+" answers", func() bool { return exec.Command("ssh", h.login(ip, "true")...).Run() == nil })
	binary, err := os.ReadFile(os.Getenv("K3LAB_K3S_BINARY"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.script(ip, "cat >/usr/local/bin/k3s; chmod 755 /usr/local/bin/k3s", binary)
	var command strings.Builder
	for _, a := range args {
		command.WriteString(" \\\n\t'" + a + "'")
	}
	h.script(ip, "cat >/etc/systemd/system/"+unit+".service", []byte(fmt.Sprintf(unitByHand, unit, command.String())))
	h.script(ip, "umask 077; cat >/etc/systemd/system/"+unit+".service.env", []byte(variables+"\n"))
	h.script(ip, "systemctl daemon-reload; systemctl enable "+unit+"; systemctl --no-block start "+unit, nil)
}

// unitByHand has what matters of the unit K3s's install script writes.
const unitByHand = `[Unit]
Description=Lightweight Kubernetes
Wants=network-online.target
After=network-online.target

[Install]
WantedBy=multi-user.target

[Service]
Type=notify
EnvironmentFile=-/etc/default/%%N
EnvironmentFile=-/etc/sysconfig/%%N
EnvironmentFile=-/etc/systemd/system/%s.service.env
KillMode=process
Delegate=yes
LimitNOFILE=1048576
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s
ExecStart=/usr/local/bin/k3s %s

`

// state is all of the machines that taking them over must not touch.
func (h *byHand) state() map[string]string {
	h.t.Helper()
	out := map[string]string{}
	for _, n := range byHandNodes {
		ip, unit := n.ip, n.unit
		out[ip+" process"] = h.script(ip, "systemctl show --property=MainPID,ActiveEnterTimestamp "+unit, nil)
		out[ip+" boot"] = h.script(ip, "cat /proc/1/stat | cut -d \" \" -f 22", nil)
		out[ip+" files"] = h.script(ip, "sha256sum /etc/systemd/system/k3s*.service* /usr/local/bin/k3s /etc/hostname; find /etc/rancher -type f | sort | grep -v config.yaml.d | xargs sha256sum", nil)
	}
	for _, n := range byHandNodes {
		var config map[string]any
		h.api.call("GET", "/nodes/pve1/qemu/"+itoa(n.vmid)+"/config", &config)
		delete(config, "digest")
		out["vm "+n.name] = fmt.Sprint(config)
	}
	return out
}
