package desired

import (
	"slices"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
)

// k3sData is where K3s keeps all it knows.
const k3sData = "/var/lib/rancher/k3s"

// Reset returns the state of a machine that K3s, the virtual address and the
// firewall of k3lab were taken off. What belongs to the machine stays: packages,
// users and their keys, settings of kernel and sshd.
func Reset(lab *config.Lab, m *config.Machine) converger.State {
	stopped := func(unit string) converger.Resource {
		return converger.Resource{Unit: &converger.Unit{Name: unit}}
	}
	left := &converger.Remains{
		// The shims outlive their parent, and are the parents of containers.
		Programs:   []string{k3sData + "/data", binaryPath},
		Interfaces: []string{"cni0", "flannel.1", "flannel-v6.1", "flannel-wg", "flannel-wg-v6", "kube-ipvs0", "nodelocaldns"},
		Namespaces: "cni-",
		Chains:     []string{"KUBE-", "CNI-", "FLANNEL", "flannel"},
		Tools:      k3sData + "/data/current/bin/aux",
	}
	resources := []converger.Resource{stopped(ServerUnit), stopped(AgentUnit)}
	if vip := provider(lab); m.Role == config.RoleServer && vip != "" {
		if vip == config.VIPKeepalived {
			resources = append(resources, stopped(keepalivedUnit))
		}
		left.Addresses = []string{lab.Network.VIP.String()}
	}
	resources = append(resources, converger.Resource{Remains: left})
	// Data last: as long as it is there the machine still counts as a member.
	for _, path := range slices.Concat(vipFiles(lab, m), []string{
		"/etc/systemd/system/" + ServerUnit, "/etc/systemd/system/" + ServerUnit + ".env",
		"/etc/systemd/system/" + AgentUnit, "/etc/systemd/system/" + AgentUnit + ".env",
		"/etc/systemd/system/" + ServerUnit + ".d", "/etc/systemd/system/" + AgentUnit + ".d",
		"/usr/local/bin/kubectl", "/usr/local/bin/crictl", "/usr/local/bin/ctr", binaryPath,
		"/etc/rancher", "/etc/cni", "/run/k3s", "/run/flannel", "/var/lib/cni", "/var/lib/kubelet",
		"/var/log/pods", "/var/log/containers", auditLogDir, k3sData, "/var/lib/rancher/k3lab", "/var/lib/k3lab/cache",
	}) {
		resources = append(resources, converger.Resource{Absent: &converger.Absent{Path: path, Unmount: true}})
	}
	return converger.State{Machine: m.Name, Resources: append(resources,
		converger.Resource{Nftables: &converger.Nftables{Table: firewallTable, Path: firewallPath}},
		stopped(firewallUnit),
		converger.Resource{Absent: &converger.Absent{Path: firewallUnitPath}},
		converger.Resource{Absent: &converger.Absent{Path: "/etc/k3lab"}},
	)}
}

func vipFiles(lab *config.Lab, m *config.Machine) []string {
	if m.Role != config.RoleServer || provider(lab) != config.VIPKeepalived {
		return nil
	}
	return []string{keepalivedPath, checkPath}
}
