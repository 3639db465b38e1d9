package infra_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"text/template"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/infra"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/sandbox/pveapi"
	"github.com/k3lab/k3lab/internal/step"
	"github.com/k3lab/k3lab/internal/tfprovider"
)

// TestMain makes the test binary serve provider k3lab, as the k3lab binary does.
func TestMain(m *testing.M) {
	if tfprovider.IsPlugin() {
		if err := tfprovider.Serve(context.Background(), "0.1.0"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// rig is a workspace and the Proxmox it is for. The settings files are written
// from the fields of settings, so that a test changes a field and plans again.
type rig struct {
	t        *testing.T
	dir      string
	settings settings
	server   *pveapi.Server
	address  string
	tokens   map[string]string
	identity *age.X25519Identity
	binary   string // the terraform to use; empty: from PATH
	events   *events
	files    map[string]string // templates of the settings files
	VMs      infra.VMs         // the rig itself
	adjust   func(*config.Lab) // what files say otherwise than the usual ones; may be nil
}

// settings is what the tests vary of a lab of two servers, an agent with a data
// disk, a disabled machine, a metal one and one that is no node.
type settings struct {
	URL, CAFile     string
	DiskGiB         int
	MemoryMiB       int
	AgentDiskGiB    int
	ServerVMID      int
	Server2         string // hypervisor
	AgentEnabled    bool
	Checksum        string
	ImageDate       string
	Storage, Bridge string
	MAC             string
	Keys            string // one more public key of the user
}

const administrator = "root@pam!test=00000000-0000-4000-8000-000000000000"

func newRig(t *testing.T) *rig {
	t.Helper()
	if testing.Short() {
		t.Skip("runs terraform")
	}
	terraform(t)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		t: t, dir: t.TempDir(), identity: identity, events: &events{}, files: maps.Clone(settingsFiles),
		tokens: map[string]string{"home": administrator},
		settings: settings{
			CAFile: "terraform/ca/home.pem", DiskGiB: 8, MemoryMiB: 2048, AgentDiskGiB: 20, ServerVMID: 201,
			Server2: "pve2", AgentEnabled: true, Checksum: strings.Repeat("ab", 64), ImageDate: "20260110",
			Storage: "local-lvm", Bridge: "vmbr0",
		},
	}
	r.VMs = r
	t.Setenv("HOME", t.TempDir())
	t.Setenv("TF_CLI_ARGS_plan", "-destroy") // must not reach terraform
	r.server, r.address = r.serve("home", "pve1", "pve2")
	r.settings.URL = "https://" + r.address
	templates := "../workspace/templates/terraform"
	if err := os.CopyFS(filepath.Join(r.dir, "terraform"), os.DirFS(templates)); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(r.server.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	r.write("terraform/ca/home.pem", string(ca), 0o644)
	r.write("terraform/providers.k3lab.tf", infra.ProvidersFile(r.lab()), 0o644)
	r.write("key", privateKey(t), 0o600)
	return r
}

// terraform is the path of the terraform or tofu the tests run.
func terraform(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"terraform", "tofu"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("neither terraform nor tofu is in PATH")
	return ""
}

// serve serves the API of a cluster of these hypervisors and returns its address.
func (r *rig) serve(name string, hypervisors ...string) (*pveapi.Server, string) {
	r.t.Helper()
	options := pveapi.Options{
		StateDir: filepath.Join(r.dir, ".sim", name),
		Token:    pveapi.Token{User: "root@pam", ID: "test", Secret: "00000000-0000-4000-8000-000000000000"},
		Log:      func(format string, args ...any) { r.t.Logf("api "+name+": "+format, args...) },
	}
	for _, h := range hypervisors {
		options.Hypervisors = append(options.Hypervisors, pveapi.Hypervisor{Name: h, MemoryMiB: 32768, Cores: 8})
	}
	server, err := pveapi.Open(options)
	if err != nil {
		r.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			r.t.Errorf("serve: %v", err)
		}
		server.Close()
	})
	return server, listener.Addr().String()
}

// run runs a subtest on the same rig.
func (r *rig) run(name string, f func(t *testing.T)) {
	outer := r.t
	defer func() { r.t = outer }()
	outer.Run(name, func(t *testing.T) {
		r.t = t
		f(t)
	})
}

// unusedAddress is one nobody listens at.
func unusedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

func (r *rig) faults(f pveapi.Faults) {
	r.t.Helper()
	if err := r.server.SetFaults(f); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) write(name, text string, mode fs.FileMode) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		r.t.Fatal(err)
	}
}

var settingsFiles = map[string]string{
	"terraform/vars/nodes.yaml": `
defaults:
  memory_mib: {{.MemoryMiB}}
  disk_gib: {{.DiskGiB}}
machines:
  server-1: {role: master, hypervisor: pve1, vmid: {{.ServerVMID}}, ip: 192.0.2.11{{if .MAC}}, mac: "{{.MAC}}"{{end}}}
  server-2: {role: server, hypervisor: {{.Server2}}, vmid: 202, ip: 192.0.2.12}
  agent-1:
    hypervisor: pve2
    vmid: 203
    ip: 192.0.2.13
    balloon_mib: 1024
    vlan: 150
    enabled: {{.AgentEnabled}}
    labels: {tier: 1}
    extra_disks: [{size_gib: {{.AgentDiskGiB}}, serial: DATA01, mount: /srv/data}]
  spare: {role: agent, hypervisor: pve2, vmid: 204, ip: 192.0.2.14, enabled: false}
  metal: {role: agent, hypervisor: none, ip: 192.0.2.15}
  balancer: {role: none, hypervisor: pve1, vmid: 206, ip: 192.0.2.16}
`,
	"terraform/vars/network.yaml": `
bridge: {{.Bridge}}
cidr: 192.0.2.0/24
gateway: 192.0.2.1
dns_servers: [192.0.2.1]
search_domain: lab.example
`,
	"terraform/vars/proxmox.yaml": `
endpoints:
  home: {url: "{{.URL}}"{{with .CAFile}}, ca_file: {{.}}{{end}}}
hypervisors:
  pve1: {endpoint: home, storage: {{.Storage}}, image_storage: local, template_vmid: 9001}
  pve2: {endpoint: home, storage: {{.Storage}}, image_storage: local, template_vmid: 9002}
pool: k3lab
image:
  url: https://images.example/{{.ImageDate}}/debian-13-genericcloud-amd64.qcow2
  checksum: {{.Checksum}}
  checksum_algorithm: sha512
  file_name: debian-13-{{.ImageDate}}.qcow2
`,
	"ansible/group_vars/all.yaml": `
lab_name: test
access:
  user: k3lab
  public_keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJq0xEwyRZQaiqMuBpy4TApSi2aNIHqvRhWHVP8eXIOz me@pc"{{if .Keys}}, "{{.Keys}}"{{end}}]
  key_file: key
`,
}

// privateKey makes a key pair's private half.
func privateKey(t *testing.T) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "test")
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block))
}

// lab writes the settings files and returns them as package config does.
func (r *rig) lab() *config.Lab {
	r.t.Helper()
	for name, text := range r.files {
		var out strings.Builder
		if err := template.Must(template.New(name).Parse(text)).Execute(&out, r.settings); err != nil {
			r.t.Fatal(err)
		}
		r.write(name, out.String(), 0o644)
	}
	ip := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }
	s := r.settings
	lab := &config.Lab{
		Name: "test",
		Machines: []*config.Machine{
			{Name: "server-1", Role: config.RoleServer, Enabled: true, Hypervisor: "pve1", VMID: s.ServerVMID, IP: ip(11)},
			{Name: "server-2", Role: config.RoleServer, Enabled: true, Hypervisor: s.Server2, VMID: 202, IP: ip(12)},
			{Name: "agent-1", Role: config.RoleAgent, Enabled: s.AgentEnabled, Hypervisor: "pve2", VMID: 203, IP: ip(13)},
			{Name: "spare", Role: config.RoleAgent, Hypervisor: "pve2", VMID: 204, IP: ip(14)},
			{Name: "metal", Role: config.RoleAgent, Enabled: true, Hypervisor: config.HypervisorNone, IP: ip(15)},
			{Name: "balancer", Role: config.RoleNone, Enabled: true, Hypervisor: "pve1", VMID: 206, IP: ip(16)},
		},
		Proxmox: config.Proxmox{
			Endpoints: []config.Endpoint{{Name: "home", URL: s.URL, CAFile: s.CAFile, Hypervisors: []string{"pve1", "pve2"}}},
			Hypervisors: map[string]config.Hypervisor{
				"pve1": {Name: "pve1", Endpoint: "home", Storage: s.Storage, ImageStorage: "local", TemplateVMID: 9001},
				"pve2": {Name: "pve2", Endpoint: "home", Storage: s.Storage, ImageStorage: "local", TemplateVMID: 9002},
			},
			Pool: "k3lab",
		},
	}
	if r.adjust != nil {
		r.adjust(lab)
	}
	return lab
}

func (r *rig) options() infra.Options {
	r.t.Helper()
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	mirror := os.Getenv("K3LAB_PROVIDER_MIRROR")
	if mirror == "" {
		if _, err := os.Stat("../../bin/mirror"); err == nil {
			mirror = "../../bin/mirror"
		}
	}
	return infra.Options{
		Dir: r.dir, Lab: r.lab(), Tokens: r.tokens, PluginBinary: self, Version: "0.1.0", Binary: r.binary,
		Mirror: mirror, Recipients: []age.Recipient{r.identity.Recipient()}, VMs: r.VMs,
	}
}

func (r *rig) terraform() *infra.Terraform {
	r.t.Helper()
	tf, err := infra.New(r.options())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := tf.Close(); err != nil {
			r.t.Error(err)
		}
	})
	return tf
}

// plan returns the planned changes, one line each, and the error's text.
func (r *rig) plan() ([]string, error) {
	r.t.Helper()
	changes, err := infra.Provision(r.terraform()).Plan(r.t.Context(), r.events)
	return lines(changes), err
}

// up plans and applies as an operation does, and returns what was planned.
func (r *rig) up(ctx context.Context) ([]string, error) {
	r.t.Helper()
	steps := step.Sequence{infra.Provision(r.terraform())}
	plan, err := steps.Plan(ctx, r.events)
	if err != nil {
		return nil, err
	}
	return lines(plan.Changes()), steps.Apply(ctx, r.events, plan)
}

func (r *rig) mustUp() []string {
	r.t.Helper()
	planned, err := r.up(r.t.Context())
	if err != nil {
		r.t.Fatalf("up: %v", err)
	}
	return planned
}

// destroy removes the lab as an operation does.
func (r *rig) destroy() {
	r.t.Helper()
	steps := step.Sequence{infra.Remove(r.terraform())}
	plan, err := steps.Plan(r.t.Context(), r.events)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := steps.Apply(r.t.Context(), r.events, plan); err != nil {
		r.t.Fatal(err)
	}
}

func lines(changes []step.Change) []string {
	var out []string
	for _, c := range changes {
		out = append(out, strings.Join(strings.Fields(fmt.Sprintf("%s %s %s: %s", c.Action, c.Object, c.Resource, c.Detail)), " "))
	}
	return out
}

// events keeps what is reported.
type events struct {
	mu    sync.Mutex
	all   []report.Event
	watch func(report.Event)
}

func (e *events) Report(event report.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
	if e.watch != nil {
		e.watch(event)
	}
}
