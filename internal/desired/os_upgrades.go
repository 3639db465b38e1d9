package desired

import (
	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
)

// upgradesPath is read after the files of Debian's packages, so it wins over
// them, and before those whose names begin with a greater number.
const upgradesPath = "/etc/apt/apt.conf.d/60k3lab"

// aptHeader is header in the language of apt's configuration.
const aptHeader = "// Written by k3lab from the lab's settings; changes made here are put back.\n"

// upgradesOn takes security updates only, and never reboots: machines are
// rebooted one at a time, by an operation that drains them. The origins are
// those of Debian and of Ubuntu.
const upgradesOn = aptHeader + `APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
APT::Periodic::AutocleanInterval "7";
#clear Unattended-Upgrade::Allowed-Origins;
#clear Unattended-Upgrade::Origins-Pattern;
Unattended-Upgrade::Origins-Pattern {
  "origin=Debian,codename=${distro_codename},label=Debian-Security";
  "origin=Debian,codename=${distro_codename}-security,label=Debian-Security";
  "origin=Ubuntu,archive=${distro_codename}-security";
};
Unattended-Upgrade::Automatic-Reboot "false";
`

const upgradesOff = aptHeader + `APT::Periodic::Unattended-Upgrade "0";
`

// upgrades come before the package that makes them, so that it never works with
// other settings than these.
func upgrades(lab *config.Lab) []converger.Resource {
	if !lab.OS.UnattendedUpgrades {
		return []converger.Resource{file(upgradesPath, upgradesOff, 0o644)}
	}
	out := []converger.Resource{file(upgradesPath, upgradesOn, 0o644)}
	for _, name := range []string{"apt-daily.timer", "apt-daily-upgrade.timer"} {
		out = append(out, converger.Resource{Unit: &converger.Unit{Name: name, Enabled: true, Running: true}})
	}
	return out
}
