package desired

import (
	"strings"

	"github.com/k3lab/k3lab/internal/config"
)

// unitFile is the unit of K3s's own installer: Type=notify so that a start
// returns when the node is up, KillMode=process so that a restart leaves pods
// running, Delegate because kubelet makes cgroups below its own.
func unitFile(m *config.Machine) string {
	var s strings.Builder
	s.WriteString(header)
	s.WriteString("[Unit]\nDescription=Lightweight Kubernetes\nDocumentation=https://k3s.io\n" +
		"Wants=network-online.target\nAfter=network-online.target\n\n")
	s.WriteString("[Service]\nType=notify\n")
	s.WriteString("EnvironmentFile=-/etc/systemd/system/" + Unit(m) + ".env\n")
	s.WriteString("KillMode=process\nDelegate=yes\nLimitNOFILE=1048576\nLimitNPROC=infinity\nLimitCORE=infinity\n" +
		"TasksMax=infinity\nTimeoutStartSec=0\nRestart=always\nRestartSec=5s\n")
	s.WriteString("ExecStart=" + binaryPath + " " + string(m.Role) + "\n\n")
	s.WriteString("[Install]\nWantedBy=multi-user.target\n")
	return s.String()
}
