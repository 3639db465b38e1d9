package desired

import (
	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
)

// The firewall of a machine is one nftables table of k3lab's own. What K3s,
// kube-proxy and network plugins keep in other tables is never touched: a packet
// passes only where all of them let it.
const (
	firewallTable    = "k3lab" // of family inet
	firewallPath     = "/etc/k3lab/firewall.nft"
	firewallUnit     = "k3lab-firewall.service"
	firewallUnitPath = "/etc/systemd/system/" + firewallUnit
)

// firewall is guarded: it may cut off whoever sets it up.
func firewall(lab *config.Lab, m *config.Machine) []converger.Resource {
	table := converger.Resource{Guarded: true, Nftables: &converger.Nftables{Table: firewallTable, Path: firewallPath}}
	if !lab.Firewall.Enabled {
		return tagged(TagFirewall,
			table,
			converger.Resource{Guarded: true, Unit: &converger.Unit{Name: firewallUnit}},
			converger.Resource{Guarded: true, Absent: &converger.Absent{Path: firewallUnitPath}},
		)
	}
	table.Nftables.Ruleset = newRuleset(lab, m).String()
	unit := file(firewallUnitPath, header+firewallUnitText, 0o644)
	unit.Guarded = true
	return tagged(TagFirewall,
		converger.Resource{Package: &converger.Package{Name: "nftables"}},
		directory("/etc/k3lab", 0o700),
		unit,
		table,
		converger.Resource{Guarded: true, Unit: &converger.Unit{Name: firewallUnit, Enabled: true, Running: true}},
	)
}

// firewallUnitText loads the table before the network is up. Debian's own
// nftables.service empties all tables when it starts or stops; ours comes back
// after it.
const firewallUnitText = `[Unit]
Description=Firewall of k3lab
ConditionPathExists=` + firewallPath + `
DefaultDependencies=no
After=local-fs.target systemd-modules-load.service nftables.service k3lab-guard.service
PartOf=nftables.service
Before=network-pre.target shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f ` + firewallPath + `
ExecReload=/usr/sbin/nft -f ` + firewallPath + `

[Install]
WantedBy=sysinit.target
`
