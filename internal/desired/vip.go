package desired

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
)

const (
	keepalivedPackage = "keepalived"
	keepalivedUnit    = "keepalived.service"
	keepalivedPath    = "/etc/keepalived/keepalived.conf"
	checkPath         = "/etc/keepalived/k3s-ready"
	// stoppedPath says 1 while K3s is stopped or dead, else 0. It is gone after a boot.
	stoppedPath   = "/run/k3lab-k3s-stopped"
	stoppedDropIn = "/etc/systemd/system/" + ServerUnit + ".d"
)

// How long etcd goes without its leader before it elects another, and how often
// the leader shows itself, both in milliseconds. An election begins after one to
// two times the first. K3s's own 5000 and 500 would leave the API unable to write
// for up to ten seconds; etcd's own 1000 and 100 hold elections whenever a disk or
// a hypervisor is slow.
const (
	electionTimeout   = 2000
	heartbeatInterval = 200
)

// virtualAddress keeps the VIP on a server whose API is ready, by the settings'
// provider, and takes off what k3lab put there for another one.
func virtualAddress(lab *config.Lab, m *config.Machine, in Inputs) []converger.Resource {
	var resources []converger.Resource
	switch provider(lab) {
	case config.VIPKeepalived:
		resources = append(noKubeVIP(), keepalived(lab, m, in)...)
	case config.VIPKubeVIP:
		resources = append(noKeepalived(), kubeVIP(lab, in)...)
	default:
		resources = append(noKubeVIP(), noKeepalived()...)
	}
	return tagged(TagHA, resources...)
}

// provider is what keeps the VIP, empty where there is none.
func provider(lab *config.Lab) config.VIPProvider {
	if !lab.Network.VIP.IsValid() {
		return ""
	}
	return cmp.Or(lab.Network.VIPProvider, config.VIPKeepalived)
}

// keepalived keeps the VIP beside K3s.
//
// All servers have the same priority, so one that comes back takes nothing away
// from the one that serves. Peers are named, because many home networks drop
// multicast. Three things move the address:
//
//   - A machine that says nothing for three and a half adverts has lost it.
//   - K3s that stops or dies has systemd say so in a file, which keepalived
//     watches: it gives the address up at once. So a restart hands it over.
//   - The health check raises the priority, so a server whose API is ready wins
//     over one whose API hangs; where none is ready the address stays.
func keepalived(lab *config.Lab, m *config.Machine, in Inputs) []converger.Resource {
	check := file(checkPath, readyCheck, 0o755)
	conf := file(keepalivedPath, keepalivedConf(lab, m, in.Interface), 0o644)
	conf.File.Claims = claims(lab, in.Interface)
	return []converger.Resource{
		packageNamed("curl"), packageNamed(keepalivedPackage),
		directory("/etc/keepalived", 0o755),
		check, conf,
		directory(stoppedDropIn, 0o755),
		file(stoppedDropIn+"/50-vip.conf", stoppedText, 0o644),
		{Unit: &converger.Unit{
			Name: keepalivedUnit, Enabled: true, Running: true,
			RestartOn: []string{"file " + keepalivedPath},
		}},
	}
}

// noKeepalived takes keepalived off a machine where its configuration is k3lab's.
// Stopping it, it gives the address up.
func noKeepalived() []converger.Resource {
	ours := &converger.Unless{Unmarked: &converger.Marked{Path: keepalivedPath, Mark: header}}
	out := []converger.Resource{
		{Unit: &converger.Unit{Name: keepalivedUnit}},
		{Package: &converger.Package{Name: keepalivedPackage, Absent: true}},
		{Absent: &converger.Absent{Path: stoppedDropIn + "/50-vip.conf"}},
		{Absent: &converger.Absent{Path: stoppedPath}},
		{Absent: &converger.Absent{Path: checkPath}},
		{Absent: &converger.Absent{Path: keepalivedPath}}, // last: by it the rest is known
	}
	for i := range out {
		out[i].Unless = ours
	}
	return out
}

// stoppedText has systemd tell keepalived how K3s is. ExecStop comes before the
// signal that ends K3s, ExecStopPost also after it was killed or did not start.
const stoppedText = header + `[Service]
ExecStartPre=/bin/sh -c "echo 0 > ` + stoppedPath + `"
ExecStop=/bin/sh -c "echo 1 > ` + stoppedPath + `"
ExecStopPost=/bin/sh -c "echo 1 > ` + stoppedPath + `"
`

// etcdTimes has servers that share an address find a new leader of the datastore
// as fast as the address moves.
func etcdTimes(lab *config.Lab) map[string]any {
	if !lab.Network.VIP.IsValid() || len(lab.Servers()) < 2 {
		return nil
	}
	return map[string]any{"etcd-arg": []string{
		fmt.Sprintf("election-timeout=%d", electionTimeout),
		fmt.Sprintf("heartbeat-interval=%d", heartbeatInterval),
	}}
}

// readyCheck asks the server's own API whether it is ready, datastore included. One
// answer that is too late counts: a second, this patience and the time after which
// another server takes the address must stay below five seconds together. It does
// no harm where it was a false alarm: the address goes to a server that is ready
// for as long as that takes, and stays there, or nowhere.
const readyCheck = `#!/bin/sh
` + header + `tls=/var/lib/rancher/k3s/server/tls
exec curl --silent --fail --output /dev/null --max-time 1.5 \
  --cacert "$tls/server-ca.crt" --cert "$tls/client-admin.crt" --key "$tls/client-admin.key" \
  https://127.0.0.1:6443/readyz
`

// claims are looked at before a server gets settings of the VIP that are new: an address or
// a VRRP ID that somebody else has would take the API away, or a router.
func claims(lab *config.Lab, device string) *converger.Claims {
	const settings = " in terraform/vars/network.yaml"
	c := &converger.Claims{
		Interface: device, Address: lab.Network.VIP.String(), Own: addresses(lab.Servers()), AddressSetting: "vip" + settings,
	}
	if provider(lab) == config.VIPKeepalived {
		c.VRRPID, c.IDSetting = lab.Network.VRRPID, "vrrp_id"+settings
	}
	return c
}

func keepalivedConf(lab *config.Lab, m *config.Machine, device string) string {
	var peers strings.Builder
	for _, s := range lab.Servers() {
		if s.Name != m.Name {
			fmt.Fprintf(&peers, "    %s\n", s.IP)
		}
	}
	unicast := ""
	if peers.Len() > 0 {
		unicast = fmt.Sprintf("  unicast_src_ip %s\n  unicast_peer {\n%s  }\n", m.IP, peers.String())
	}
	return header + fmt.Sprintf(`global_defs {
  router_id %s
  enable_script_security
  script_user root
  vrrp_version 3
  vrrp_priority -20
  vrrp_garp_master_delay 1
  vrrp_garp_master_refresh 60
}

track_file k3s_stopped {
  file %q
  weight 0
  init_file 0
}

vrrp_script k3s_ready {
  script %q
  interval 1
  timeout 2
  rise 2
  fall 1
  weight 50
}

vrrp_instance api {
  state BACKUP
  interface %s
  virtual_router_id %d
  priority 100
  advert_int 0.4
%s  virtual_ipaddress {
    %s/%d dev %s
  }
  track_file {
    k3s_stopped
  }
  track_script {
    k3s_ready
  }
}
`, m.Name, stoppedPath, checkPath, device, lab.Network.VRRPID, unicast,
		lab.Network.VIP, lab.Network.VIP.BitLen(), device)
}
