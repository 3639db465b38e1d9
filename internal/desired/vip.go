package desired

import (
	"fmt"
	"strings"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
)

const (
	keepalivedUnit = "keepalived.service"
	keepalivedPath = "/etc/keepalived/keepalived.conf"
	checkPath      = "/etc/keepalived/k3s-ready"
)

// virtualAddress keeps the VIP on a server whose API is ready.
//
// All servers have the same priority, so one that comes back takes nothing away
// from the one that serves; the health check raises the priority, so a server
// whose API is ready wins over one whose API is not. Peers are named, because
// many home networks drop multicast.
func virtualAddress(lab *config.Lab, m *config.Machine, in Inputs) []converger.Resource {
	check := file(checkPath, readyCheck, 0o755)
	conf := file(keepalivedPath, keepalivedConf(lab, m, in.Interface), 0o644)
	return tagged(TagHA,
		converger.Resource{Package: &converger.Package{Name: "curl"}},
		converger.Resource{Package: &converger.Package{Name: "keepalived"}},
		directory("/etc/keepalived", 0o755),
		check, conf,
		converger.Resource{Unit: &converger.Unit{
			Name: keepalivedUnit, Enabled: true, Running: true,
			RestartOn: []string{"file " + keepalivedPath},
		}},
	)
}

// readyCheck asks the server's own API whether it is ready, datastore included.
const readyCheck = `#!/bin/sh
` + header + `tls=/var/lib/rancher/k3s/server/tls
exec curl --silent --fail --output /dev/null --max-time 2 \
  --cacert "$tls/server-ca.crt" --cert "$tls/client-admin.crt" --key "$tls/client-admin.key" \
  https://127.0.0.1:6443/readyz
`

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
  vrrp_garp_master_refresh 60
}

vrrp_script k3s_ready {
  script %q
  interval 2
  timeout 3
  rise 1
  fall 2
  weight 50
}

vrrp_instance api {
  state BACKUP
  interface %s
  virtual_router_id %d
  priority 100
  advert_int 1
%s  virtual_ipaddress {
    %s/%d dev %s
  }
  track_script {
    k3s_ready
  }
}
`, m.Name, checkPath, device, lab.Network.VRRPID, unicast,
		lab.Network.VIP, lab.Network.VIP.BitLen(), device)
}
