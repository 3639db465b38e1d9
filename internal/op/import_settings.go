package op

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/go-version"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/desired"
	"github.com/k3lab/k3lab/internal/existing"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/release"
	"github.com/k3lab/k3lab/internal/secrets"
	"github.com/k3lab/k3lab/internal/workspace"
)

// settings are what the settings files must say so that they describe what was
// found. What they cannot say is told in a notice.
func (i *importing) settings() (workspace.Imported, error) {
	first := i.nodes[0]
	in := workspace.Imported{
		LabName: i.opts.LabName, User: i.user, KeyFile: underHome(i.keyFile),
		Token: secrets.NewValue(first.Token), SecretsEncryption: first.Encrypted,
		Timezone:     cmp.Or(first.Timezone, "Etc/UTC"),
		ServerConfig: i.common(config.RoleServer), AgentConfig: i.common(config.RoleAgent),
	}
	if in.LabName == "" {
		place, err := filepath.Abs(i.opts.Dir)
		if err != nil {
			return in, err
		}
		in.LabName = labName(filepath.Base(place))
	}
	if err := i.clusterSettings(first, &in); err != nil {
		return in, err
	}
	i.version(&in)
	if err := i.network(&in); err != nil {
		return in, err
	}
	for _, n := range i.nodes {
		in.Machines = append(in.Machines, i.machine(n))
	}
	if i.infra != nil {
		in.Endpoint, in.Hypervisors, in.Bridge = i.infra.endpoint, i.infra.hypervisors, i.infra.bridge
	}
	return in, nil
}

// underHome writes a path so that it holds on other computers of the user, too.
func underHome(path string) string {
	if home, err := os.UserHomeDir(); err == nil {
		if rest, ok := strings.CutPrefix(path, home+"/"); ok {
			return "~/" + rest
		}
	}
	return path
}

// clusterSettings are what all servers must agree on.
func (i *importing) clusterSettings(first *found, in *workspace.Imported) error {
	s := first.Settings
	in.PodCIDR, in.ServiceCIDR = cmp.Or(s.Text("cluster-cidr"), "10.42.0.0/16"), cmp.Or(s.Text("service-cidr"), "10.43.0.0/16")
	for _, cidr := range []string{in.PodCIDR, in.ServiceCIDR} {
		if p, err := netip.ParsePrefix(cidr); err != nil || !p.Addr().Is4() {
			return fault.New(fault.Invalid, first.Name, "", "its pods or Services have %s: k3lab knows clusters with one IPv4 network for each", cidr)
		}
	}
	in.ClusterDomain = cmp.Or(s.Text("cluster-domain"), "cluster.local")
	in.Disable = s.List("disable")
	in.CNI = "flannel"
	switch backend := cmp.Or(s.Text("flannel-backend"), "vxlan"); backend {
	case "none":
		in.CNI = "none"
		delete(in.ServerConfig, "disable-network-policy") // which goes with it
	case "vxlan", "wireguard-native", "host-gw":
		in.FlannelBackend = backend
	default:
		return fault.New(fault.Invalid, first.Name, "", "its flannel-backend is %s: k3lab knows vxlan, wireguard-native, host-gw and none", backend)
	}
	for _, n := range i.nodes[1:] {
		if n.Role != config.RoleServer {
			continue
		}
		for _, key := range []string{"cluster-cidr", "service-cidr", "cluster-domain", "flannel-backend"} {
			if n.Settings.Text(key) != s.Text(key) {
				i.notice("%s: its %s is %q, and %s says %q: the latter is taken.", n.Name, key, n.Settings.Text(key), first.Name, s.Text(key))
			}
		}
		if !slices.Equal(slices.Sorted(slices.Values(n.Settings.List("disable"))), slices.Sorted(slices.Values(in.Disable))) {
			i.notice("%s: it disables %v, and %s disables %v: the latter is taken.", n.Name, n.Settings.List("disable"), first.Name, in.Disable)
		}
	}
	return nil
}

// own are K3s's settings that k3lab's other settings stand for, or that say only
// how a node once found its cluster.
var own = []string{
	"token", "token-file", "agent-token", "agent-token-file", "server", "cluster-init", "cluster-reset", "cluster-reset-restore-path",
	"data-dir", "config", "node-name", "node-ip", "node-label", "node-taint", "tls-san", "cluster-cidr", "service-cidr",
	"cluster-domain", "disable", "flannel-backend", "secrets-encryption", "disable-etcd", "datastore-endpoint",
}

// common are the further settings of K3s that all nodes of a role share.
func (i *importing) common(role config.Role) map[string]any {
	var out existing.Settings
	differing := map[string][]string{} // by setting, what each node says
	for _, n := range i.nodes {
		if n.Role != role {
			continue
		}
		further := existing.Settings(maps.Clone(map[string]any(n.Settings)))
		maps.DeleteFunc(further, func(key string, value any) bool {
			return slices.Contains(own, key) || existing.IsSecret(key) || value == false
		})
		for _, key := range slices.Sorted(maps.Keys(n.Settings)) {
			if existing.IsSecret(key) && !slices.Contains(own, key) {
				i.notice("%s: %s is secret and was not taken over. Before k3s is managed, put it where K3s finds it otherwise.", n.Name, key)
			}
		}
		if n.Settings["agent-token"] != nil || n.Settings["agent-token-file"] != nil {
			i.notice("%s: agents join with a token of their own. Once k3s is managed they join with that of the servers.", n.Name)
		}
		if out == nil {
			out = further
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(union(out, further))) {
			if !reflect.DeepEqual(out[key], further[key]) {
				differing[key] = nil
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(differing)) {
		delete(out, key)
		for _, n := range i.nodes {
			if n.Role == role {
				differing[key] = append(differing[key], fmt.Sprintf("%s: %v", n.Name, n.Settings[key]))
			}
		}
		i.notice("%s is not the same on all %ss (%s). k3lab has one setting for all of them, so it was left out.", key, role, strings.Join(differing[key], ", "))
	}
	return out
}

func union(a, b map[string]any) map[string]any {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// version is the newest that runs, because K3s may not be moved back.
func (i *importing) version(in *workspace.Imported) {
	var newest *version.Version
	running := map[string][]string{}
	for _, n := range i.nodes {
		running[n.Version] = append(running[n.Version], n.Name)
		v, err := version.NewVersion(n.Version)
		if err == nil && (newest == nil || v.GreaterThan(newest) || v.Equal(newest) && n.Version > in.Version) {
			newest, in.Version = v, n.Version
		}
	}
	if in.Version == "" {
		in.Version = i.nodes[0].Version // which validation then refuses by name
	}
	if len(running) < 2 {
		return
	}
	var each []string
	for _, v := range slices.Sorted(maps.Keys(running)) {
		each = append(each, v+" on "+strings.Join(running[v], ", "))
	}
	i.notice("K3s runs in several versions: %s. The settings say %s: once k3s is managed, all are brought to that.", strings.Join(each, "; "), in.Version)
}

// network is that of the first server.
func (i *importing) network(in *workspace.Imported) error {
	first := i.nodes[0]
	at := first.at()
	if !at.Prefix.IsValid() {
		return fault.New(fault.Invalid, first.Name, "kubectl get node "+first.Name+" -o wide", "none of its network interfaces has the address %s of its node", first.Address)
	}
	cidr := at.Prefix.Masked()
	in.CIDR = cidr.String()
	if cidr.Contains(first.Gateway) {
		in.Gateway = first.Gateway.String()
	}
	for _, ip := range first.DNSServers {
		in.DNSServers = append(in.DNSServers, ip.String())
	}
	ours := map[string]bool{}
	for _, n := range i.nodes {
		ours[n.Address.String()] = true
	}
	vip := i.virtualAddress(cidr)
	if vip.IsValid() {
		in.VIP = vip.String()
		ours[in.VIP] = true
	}
	for _, n := range i.nodes {
		for _, name := range n.Settings.List("tls-san") {
			if !ours[name] {
				ours[name] = true
				in.TLSSANs = append(in.TLSSANs, name)
			}
		}
	}
	return nil
}

// at is the interface that holds the node's address.
func (f *found) at() existing.Address {
	for _, a := range f.Addresses {
		if a.Prefix.Addr() == f.Address {
			return a
		}
	}
	return existing.Address{}
}

// virtualAddress is an address of no machine in particular by which nodes reach
// the API, or that a server's certificate names and a server holds.
func (i *importing) virtualAddress(cidr netip.Prefix) netip.Addr {
	var named []string
	held := map[netip.Addr]bool{}
	nodes := map[netip.Addr]bool{}
	for _, n := range i.nodes {
		nodes[n.Address] = true
		for _, a := range n.Addresses {
			held[a.Prefix.Addr()] = true
		}
		if u, err := url.Parse(n.Settings.Text("server")); err == nil && u.Hostname() != "" {
			named = append(named, u.Hostname())
		}
		named = append(named, n.Settings.List("tls-san")...)
	}
	for _, name := range named {
		ip, err := netip.ParseAddr(name)
		if err != nil || nodes[ip] || !cidr.Contains(ip) || !held[ip] {
			continue
		}
		by := "kube-vip or the like"
		if slices.ContainsFunc(i.nodes, func(f *found) bool { return f.Keepalived }) {
			by = "keepalived"
		}
		i.notice("%s is held by %s as the address of the API. It stays so until ha is managed.", ip, by)
		return ip
	}
	return netip.Addr{}
}

func (i *importing) machine(n *found) workspace.ImportedMachine {
	m := workspace.ImportedMachine{
		Name: n.Name, Role: string(n.Role), Hypervisor: config.HypervisorNone, IP: n.Address.String(), Arch: n.Arch,
		Taints: n.Settings.List("node-taint"),
	}
	for _, label := range n.Settings.List("node-label") {
		key, value, _ := strings.Cut(label, "=")
		if m.Labels == nil {
			m.Labels = map[string]string{}
		}
		m.Labels[key] = value
	}
	if len(n.Variables) > 0 {
		i.notice("%s: K3s gets %s from its unit's environment. Before k3s is managed, move that to a drop-in: systemctl edit %s", n.Name,
			strings.Join(n.Variables, ", "), strings.TrimSuffix(desired.Unit(&config.Machine{Role: n.Role}), ".service"))
	}
	if n.Hostname != n.Name {
		i.notice("%s: its host name is %s. Once os is managed it is called like its node.", n.Name, n.Hostname)
	}
	if vm, ok := i.carriedBy(n.Name); ok {
		m.Hypervisor, m.VMID, m.Cores, m.MemoryMiB, m.BalloonMiB, m.OnBoot = vm.Node, vm.ID, vm.Cores, vm.MemoryMiB, vm.BalloonMiB, vm.OnBoot
	}
	return m
}

// checkBinaries holds the K3s that runs against its release, and locks it: from
// here on nothing else is downloaded in its place unseen.
func (i *importing) checkBinaries(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, importPatience)
	defer cancel()
	i.locked = release.Digests{}
	asked := map[string]string{}
	for _, n := range i.nodes {
		name := release.BinaryName(n.Arch)
		key := release.Key(n.Version, name)
		if _, done := asked[key]; !done {
			source := release.Source{Version: n.Version}
			sum, err := source.Published(ctx, n.Arch, name)
			if asked[key] = sum; err != nil {
				i.notice("K3s %s for %s could not be held against the release: %v. Its digest as found is in %s.", n.Version, n.Arch, err, release.LockFile)
			}
		}
		if published := asked[key]; published != "" && published != n.SHA256 {
			i.notice("%s: its K3s %s is not the release: the SHA-256 is %s, the release's %s.", n.Name, n.Version, n.SHA256, published)
		}
		if other := i.locked[key]; other != "" && other != n.SHA256 {
			i.notice("%s: its K3s %s differs from that of other machines: the SHA-256 is %s, theirs %s.", n.Name, n.Version, n.SHA256, other)
			continue
		}
		i.locked[key] = n.SHA256
	}
}

// finish adds to the workspace what comes from the settings and from this computer.
func (i *importing) finish(written *workspace.Result) error {
	c, err := fromEnvironment()
	if err != nil {
		return err
	}
	notice, err := c.note(i.dir)
	if err != nil {
		return err
	}
	if notice != "" {
		written.Notices = append(written.Notices, notice)
	}
	lab, problems := config.Load(i.dir.Root())
	if err := problems.Err(); err != nil {
		return fmt.Errorf("the settings that would describe this cluster: %w", err)
	}
	for _, w := range problems.Warnings() {
		i.notice("%s", w.Short())
	}
	if err := i.locked.KeepVersions(lab.K3s.Version).Write(i.dir.Path(release.LockFile)); err != nil {
		return err
	}
	return writeProviders(i.dir, lab)
}
