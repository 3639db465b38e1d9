package desired

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/goccy/go-yaml"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
)

// Where K3s keeps its things (facts of K3s, not choices of ours).
const (
	ServerUnit = "k3s.service"
	AgentUnit  = "k3s-agent.service"
	// DatastorePath exists on a server that belongs to a cluster.
	DatastorePath = "/var/lib/rancher/k3s/server/db/etcd/member"
	// NodePasswordPath exists on a machine that has been a node of a cluster.
	NodePasswordPath = "/etc/rancher/node/password" //nolint:gosec // a path, no credential
	// KubeconfigPath is the administrator's kubeconfig on a server.
	KubeconfigPath = "/etc/rancher/k3s/k3s.yaml"

	// WireguardModule is what flannel's backend wireguard-native needs of the kernel.
	WireguardModule = "wireguard"

	// APIPort is where servers serve the API and the supervisor.
	APIPort = 6443

	binaryPath  = "/usr/local/bin/k3s"
	configDir   = "/etc/rancher/k3s"
	configPath  = configDir + "/config.yaml"
	joinPath    = configDir + "/config.yaml.d/50-join.yaml"
	tokenPath   = configDir + "/token"
	kubeletPath = configDir + "/kubelet.yaml"
	// agentJoinedPath exists on an agent that has joined a cluster.
	agentJoinedPath = "/var/lib/rancher/k3s/agent/client-kubelet.crt"

	vxlan     = "vxlan" // K3s's default
	wireguard = "wireguard-native"
)

// kubeletConfig has kubelet tell every 30 s that it is well, and not every five
// minutes (K3s's default). K3s's network policy controller starts only with a
// status that is newer than itself: a node that was ready before waited for the
// next one, without policies and with its unit "activating".
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
nodeStatusReportFrequency: 30s
`

// Unit returns the name of the systemd unit that runs K3s on the machine.
func Unit(m *config.Machine) string {
	if m.Role == config.RoleServer {
		return ServerUnit
	}
	return AgentUnit
}

func k3sNode(lab *config.Lab, m *config.Machine, in Inputs) ([]converger.Resource, error) {
	settings := agentConfig(lab, m)
	if m.Role == config.RoleServer {
		settings = serverConfig(lab, m, in)
	}
	text, err := marshal(settings)
	if err != nil {
		return nil, err
	}
	unit := Unit(m)
	unitPath := "/etc/systemd/system/" + unit
	resources := []converger.Resource{
		directory(configDir, 0o755),
		directory(configDir+"/config.yaml.d", 0o755),
		secretFile(tokenPath, in.Token+"\n"),
		both(file(kubeletPath, header+kubeletConfig, 0o600)),
	}
	restartOn := []string{"file " + configPath, "file " + kubeletPath, "file " + tokenPath, "binary " + binaryPath, "file " + unitPath}
	if m.Role == config.RoleServer {
		join, err := joinFile(in)
		if err != nil {
			return nil, err
		}
		hardening, files, err := hardeningFiles(lab)
		if err != nil {
			return nil, err
		}
		resources = append(append(resources, join), hardening...)
		restartOn = append(restartOn, files...)
	}
	if m.Role == config.RoleAgent {
		join, err := agentJoin(lab, in)
		if err != nil {
			return nil, err
		}
		resources = append(resources, join)
	}
	pulled, restarts, err := registries(lab, in)
	if err != nil {
		return nil, err
	}
	resources = append(append(resources, pulled...), images(in)...)
	restartOn = append(restartOn, restarts...)
	if lab.K3s.FlannelBackend == wireguard {
		resources = append(resources, converger.Resource{Module: &converger.Module{Name: WireguardModule}})
	}
	resources = append(resources,
		both(file(configPath, text, 0o600)),
		converger.Resource{Binary: &converger.Binary{
			Path: binaryPath, SHA256: in.BinarySHA256, Source: in.BinarySource, Version: lab.K3s.Version,
		}},
	)
	for _, name := range []string{"crictl", "ctr", "kubectl"} {
		resources = append(resources, converger.Resource{Link: &converger.Link{Path: "/usr/local/bin/" + name, Target: binaryPath}})
	}
	resources = append(resources,
		file(unitPath, unitFile(m), 0o644),
		both(converger.Resource{Unit: &converger.Unit{
			Name: unit, Enabled: true, Running: true, NoBlock: !in.Bootstrap, RestartOn: restartOn,
		}}),
	)
	for i := range resources {
		if resources[i].Tags == nil {
			resources[i].Tags = []string{TagK3s}
		}
	}
	return resources, nil
}

// joinFile says how a server without a datastore finds its cluster. One that has
// a datastore no longer reads it, so there any content is right: losing or
// rebuilding the first server changes nothing on the others.
func joinFile(in Inputs) (converger.Resource, error) {
	join := map[string]any{"server": in.JoinURL}
	if in.Bootstrap {
		join = map[string]any{"cluster-init": true}
	}
	text, err := marshal(join)
	if err != nil {
		return converger.Resource{}, err
	}
	r := file(joinPath, text, 0o600)
	r.File.KeepIf = DatastorePath
	return r, nil
}

// agentJoin says how an agent finds its cluster where the VIP is kept by pods of
// that cluster: by a server, so that nobody waits for those. One that has joined
// knows all servers, as long as this stays what it was.
func agentJoin(lab *config.Lab, in Inputs) (converger.Resource, error) {
	if provider(lab) != config.VIPKubeVIP {
		return converger.Resource{Absent: &converger.Absent{Path: joinPath}}, nil
	}
	text, err := marshal(map[string]any{"server": in.JoinURL})
	if err != nil {
		return converger.Resource{}, err
	}
	r := file(joinPath, text, 0o600)
	r.File.KeepIf = agentJoinedPath
	return r, nil
}

func serverConfig(lab *config.Lab, m *config.Machine, in Inputs) map[string]any {
	c := nodeConfig(lab, m)
	add(c, hardenedServer(lab))
	add(c, etcdTimes(lab))
	c["tls-san"] = apiNames(lab)
	c["cluster-cidr"] = lab.K3s.PodCIDR.String()
	c["service-cidr"] = lab.K3s.ServiceCIDR.String()
	c["cluster-domain"] = lab.K3s.ClusterDomain
	c["write-kubeconfig-mode"] = "0600"
	c["disable"] = slices.Sorted(slices.Values(lab.K3s.Disable))
	if in.EncryptSecrets {
		c["secrets-encryption"] = true
	}
	if lab.K3s.FlannelBackend != "" && lab.K3s.FlannelBackend != vxlan {
		c["flannel-backend"] = lab.K3s.FlannelBackend
	}
	if lab.K3s.CNI == "none" {
		c["flannel-backend"] = "none"
		c["disable-network-policy"] = true
	}
	return merge(c, lab.K3s.ServerConfig)
}

func agentConfig(lab *config.Lab, m *config.Machine) map[string]any {
	c := nodeConfig(lab, m)
	if provider(lab) != config.VIPKubeVIP {
		c["server"] = APIURL(lab)
	}
	return merge(c, lab.K3s.AgentConfig)
}

func nodeConfig(lab *config.Lab, m *config.Machine) map[string]any {
	c := map[string]any{
		"node-name":   m.Name,
		"node-ip":     m.IP.String(),
		"token-file":  tokenPath,
		"kubelet-arg": []string{"config=" + kubeletPath},
	}
	add(c, hardenedNode(lab))
	add(c, metricsOf(lab, m))
	var labels []string
	for _, key := range slices.Sorted(maps.Keys(m.Labels)) {
		labels = append(labels, key+"="+m.Labels[key])
	}
	if labels != nil {
		c["node-label"] = labels
	}
	if len(m.Taints) > 0 {
		c["node-taint"] = m.Taints
	}
	return c
}

// apiNames are the names and addresses the API's certificate must hold: the VIP,
// its DNS name, every server, and what the user adds. All servers have the same,
// so a client may move between them.
func apiNames(lab *config.Lab) []string {
	var names []string
	if lab.Network.VIP.IsValid() {
		names = append(names, lab.Network.VIP.String())
	}
	if lab.Network.VIPName != "" {
		names = append(names, lab.Network.VIPName)
	}
	for _, m := range lab.Servers() {
		names = append(names, m.IP.String())
	}
	return append(names, lab.Network.TLSSANs...)
}

// APIURL is where agents and people reach the API: the VIP, or without one the
// first server.
func APIURL(lab *config.Lab) string {
	address := lab.Network.VIP
	if !address.IsValid() {
		address = lab.Servers()[0].IP
	}
	return ServerURL(address)
}

// ServerURL is the API of the server with that address.
func ServerURL(address netip.Addr) string {
	return "https://" + netip.AddrPortFrom(address, APIPort).String()
}

func marshal(settings map[string]any) (string, error) {
	text, err := yaml.MarshalWithOptions(settings, yaml.IndentSequence(true))
	if err != nil {
		return "", fmt.Errorf("k3s config: %w", err)
	}
	return header + string(text), nil
}

const header = "# Written by k3lab from the lab's settings; changes made here are put back.\n"
