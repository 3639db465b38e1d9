package existing

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/remote"
)

// Machine is one machine of the cluster, as it is.
type Machine struct {
	Hostname   string
	Arch       string      // as Go names it
	Role       config.Role // of its K3s
	Settings   Settings    // without what is secret in them
	Version    string      // v1.36.3+k3s1
	Binary     string      // path of K3s
	SHA256     string      // hex, of the binary
	Datastore  Datastore   // servers only
	Encrypted  bool        // Secrets are encrypted in the datastore; servers only
	Addresses  []Address
	Gateway    netip.Addr // zero: none
	DNSServers []netip.Addr
	Timezone   string // empty: not known
	Keepalived bool   // it runs here
	// Variables are the names of those in K3s's environment that are no settings of
	// K3s and change what it does, in their order.
	Variables []string
	// Token is what nodes join with, and Kubeconfig the administrator's: servers
	// only. Both are secret.
	Token      string
	Kubeconfig []byte
}

// Address is one address of a network interface.
type Address struct {
	Interface string
	MAC       string // upper case, colons
	Prefix    netip.Prefix
}

// Datastore is where a server keeps the cluster.
type Datastore string

// The datastores. k3lab looks after clusters on etcd only.
const (
	Etcd     Datastore = "embedded etcd"
	SQLite   Datastore = "SQLite"
	External Datastore = "an external database"
)

//go:embed read.sh
var script string

// dataDir is where K3s keeps what it has, unless told otherwise.
const dataDir = "/var/lib/rancher/k3s"

// Read reads a machine over an open connection, as root, and changes nothing.
// A machine without K3s, or with one that does not run, is fault.Invalid.
func Read(ctx context.Context, name string, r remote.Runner) (*Machine, error) {
	if err := r.Run(ctx, remote.Cmd{Args: []string{"true"}, Root: true}); err != nil {
		var exit *remote.ExitError
		if !errors.As(err, &exit) {
			return nil, err
		}
		return nil, fault.New(fault.Invalid, name, "let the user run sudo without a password there, or log in as root: --server root@ADDRESS",
			"it cannot be read as root: %w", err)
	}
	var out bytes.Buffer
	if err := r.Run(ctx, remote.Cmd{Args: []string{"sh", "-c", script}, Root: true, Stdout: &out}); err != nil {
		return nil, fmt.Errorf("%s: reading it: %w", name, err)
	}
	found, err := decode(out.String())
	if err != nil {
		return nil, fmt.Errorf("%s: reading it: %w", name, err)
	}
	return found.machine(name)
}

// answers are what the script has printed, by name.
type answers map[string]string

func decode(text string) (answers, error) {
	out := answers{}
	for line := range strings.Lines(text) {
		name, encoded, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if !ok {
			name, encoded = strings.TrimSpace(line), ""
		}
		value, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		out[name] = string(value)
	}
	return out, nil
}

func (a answers) line(name string) string { return strings.TrimSpace(a[name]) }

func (a answers) machine(name string) (*Machine, error) {
	m := &Machine{
		Hostname: a.line("hostname"), SHA256: a.line("sha256"), Encrypted: a.line("encrypted") == "yes",
		Keepalived: a.line("keepalived") == "active", Timezone: zone(a.line("localtime")),
	}
	if err := a.started(name, m); err != nil {
		return nil, err
	}
	var ok bool
	if m.Arch, ok = map[string]string{"x86_64": "amd64", "aarch64": "arm64"}[a.line("arch")]; !ok {
		return nil, fault.New(fault.Invalid, name, "", "k3lab knows amd64 and arm64, and its processor is %s", a.line("arch"))
	}
	if f := strings.Fields(a["version"]); len(f) > 2 && f[0] == "k3s" {
		m.Version = f[2]
	} else {
		return nil, fault.New(fault.Invalid, name, "", "%s --version does not say which K3s it is: %q", m.Binary, firstLine(a["version"]))
	}
	if dir := m.Settings.Text("data-dir"); dir != "" && path.Clean(dir) != dataDir {
		return nil, fault.New(fault.Invalid, name, "", "its data is in %s, and k3lab knows only K3s that keep it in %s", dir, dataDir)
	}
	if err := a.network(m); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, a.server(name, m)
}

// started fills in how systemd starts K3s.
func (a answers) started(name string, m *Machine) error {
	var units []string
	for _, unit := range []string{"k3s", "k3s-agent"} {
		if a.line("active "+unit) == "active" {
			units = append(units, unit)
		}
	}
	if len(units) != 1 {
		return notOne(name, units, a)
	}
	unit := units[0]
	argv, err := command(a["command "+unit])
	if err != nil {
		return fmt.Errorf("%s: %s.service: %w", name, unit, err)
	}
	m.Binary = argv[0]
	at := slices.IndexFunc(argv, func(arg string) bool { return arg == "server" || arg == "agent" })
	if at < 0 {
		return fault.New(fault.Invalid, name, "", "%s.service runs K3s neither as a server nor as an agent", unit)
	}
	m.Role = config.Role(argv[at])
	if given := m.Role == config.RoleServer; given != (unit == "k3s") {
		return fault.New(fault.Invalid, name, "", "%s.service runs a K3s %s: k3lab knows servers as k3s.service and agents as k3s-agent.service", unit, m.Role)
	}
	var files []string
	for _, key := range []string{"config", "config.d"} {
		for _, text := range strings.Split(a[key], "\x00") {
			if strings.TrimSpace(text) != "" {
				files = append(files, text)
			}
		}
	}
	m.Settings, err = settings(files, strings.Split(a["environ "+unit], "\x00"), slices.Concat(argv[1:at], argv[at+1:]))
	if err != nil {
		return fault.New(fault.Invalid, name, "", "%w", err)
	}
	m.Variables = further(strings.Split(a["environ "+unit], "\x00"))
	if file := m.Settings.Text("config"); file != "" && file != "/etc/rancher/k3s/config.yaml" {
		return fault.New(fault.Invalid, name, "move it to /etc/rancher/k3s/config.yaml", "its settings are in %s, and k3lab reads K3s's own place only", file)
	}
	for key := range m.Settings {
		if IsSecret(key) {
			m.Settings[key] = hidden
		}
	}
	return nil
}

// hidden stands for a secret among settings.
const hidden = "***"

func notOne(name string, units []string, a answers) error {
	if len(units) > 1 {
		return fault.New(fault.Invalid, name, "stop one of them", "it runs K3s twice: k3s.service and k3s-agent.service")
	}
	for _, unit := range []string{"k3s", "k3s-agent"} {
		if state := a.line("active " + unit); a["command "+unit] != "" && state != "" {
			return fault.New(fault.Invalid, name, "systemctl start "+unit+" there, then the same command again", "%s.service is %s: what is read is a K3s that runs", unit, state)
		}
	}
	return fault.New(fault.Invalid, name, "name a machine on which k3s.service or k3s-agent.service runs", "this machine runs no K3s")
}

// command is a unit's command line, as systemd reads it.
func command(reply string) ([]string, error) {
	var property struct {
		Data [][]json.RawMessage `json:"data"`
	}
	var argv []string
	if err := json.Unmarshal([]byte(reply), &property); err != nil {
		return nil, fmt.Errorf("ExecStart: %w", err)
	}
	if len(property.Data) != 1 || len(property.Data[0]) < 2 {
		return nil, errors.New("ExecStart: k3lab knows units with one command only")
	}
	if err := json.Unmarshal(property.Data[0][1], &argv); err != nil || len(argv) == 0 {
		return nil, fmt.Errorf("ExecStart: no command: %w", err)
	}
	return argv, nil
}

// server fills in what only a server has.
func (a answers) server(name string, m *Machine) error {
	if m.Role != config.RoleServer {
		return nil
	}
	switch {
	case m.Settings["datastore-endpoint"] != nil:
		m.Datastore = External
	case a.line("etcd") == "yes":
		m.Datastore = Etcd
	default:
		m.Datastore = SQLite
	}
	// K10<digest of the authority>::server:<what was chosen>
	_, m.Token, _ = strings.Cut(a.line("token"), "::server:")
	if m.Token == "" {
		return fault.New(fault.Invalid, name, "", "%s/server/token holds no token of a server", dataDir)
	}
	m.Kubeconfig = []byte(a["kubeconfig"])
	if len(m.Kubeconfig) == 0 {
		return fault.New(fault.Invalid, name, "start K3s without write-kubeconfig", "there is no kubeconfig at /etc/rancher/k3s/k3s.yaml")
	}
	return nil
}

// network fills in addresses, gateway and name servers.
func (a answers) network(m *Machine) error {
	var interfaces []struct {
		Name      string `json:"ifname"`
		MAC       string `json:"address"`
		Addresses []struct {
			Local  string `json:"local"`
			Length int    `json:"prefixlen"`
		} `json:"addr_info"`
	}
	if err := json.Unmarshal([]byte(a["addresses"]), &interfaces); err != nil {
		return fmt.Errorf("its addresses cannot be read: %w", err)
	}
	for _, i := range interfaces {
		for _, at := range i.Addresses {
			if ip, err := netip.ParseAddr(at.Local); err == nil {
				m.Addresses = append(m.Addresses, Address{i.Name, strings.ToUpper(i.MAC), netip.PrefixFrom(ip, at.Length)})
			}
		}
	}
	var routes []struct {
		Gateway string `json:"gateway"`
	}
	if err := json.Unmarshal([]byte(a["routes"]), &routes); err == nil && len(routes) > 0 {
		m.Gateway, _ = netip.ParseAddr(routes[0].Gateway) // zero where the route has none
	}
	for line := range strings.Lines(a["resolv"]) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "nameserver" {
			if ip, err := netip.ParseAddr(f[1]); err == nil && !ip.IsLoopback() && ip.Zone() == "" {
				m.DNSServers = append(m.DNSServers, ip)
			}
		}
	}
	return nil
}

// zone is the time zone that /etc/localtime leads to.
func zone(target string) string {
	_, name, _ := strings.Cut(target, "zoneinfo/")
	return name
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
