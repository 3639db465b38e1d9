package cluster

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
)

// secretFiles are files of K3s that nobody but root may read; those of servers do
// not exist on agents, and the other way round.
var secretFiles = []string{
	"/etc/rancher/k3s/*.yaml", "/etc/rancher/k3s/config.yaml.d/*.yaml", "/etc/rancher/k3s/token", "/etc/rancher/node/password",
	"/var/lib/rancher/k3s/server/token", "/var/lib/rancher/k3s/server/cred/*", "/var/lib/rancher/k3s/server/db/snapshots/*",
	"/var/lib/rancher/k3s/server/tls/*.key", "/var/lib/rancher/k3s/server/tls/etcd/*.key",
	"/var/lib/rancher/k3s/agent/*.key", "/var/lib/rancher/k3s/agent/*.kubeconfig",
}

// secretDirectories are directories nobody but root may enter.
var secretDirectories = []string{"/var/lib/rancher/k3s/server/tls", "/var/lib/rancher/k3s/server/db/etcd"}

// hardenedSysctls are what kubelet's protection of kernel defaults asks for.
var hardenedSysctls = map[string]string{
	"kernel.panic": "10", "kernel.panic_on_oops": "1", "vm.overcommit_memory": "1", "vm.panic_on_oom": "0",
}

// hardenedSSHD are settings of sshd, as sshd itself prints them.
var hardenedSSHD = map[string][]string{
	"permitrootlogin": {"no"}, "passwordauthentication": {"no"}, "kbdinteractiveauthentication": {"no"},
	"permitemptypasswords": {"no"}, "x11forwarding": {"no"},
}

func factsForSecurity() converger.FactsRequest {
	return converger.FactsRequest{
		Files:   slices.Concat(secretFiles, secretDirectories),
		Sysctls: slices.Sorted(maps.Keys(hardenedSysctls)),
	}
}

func answers(_ context.Context, s *Security, m *config.Machine) (Verdict, string) {
	f, known := s.facts[m.Name]
	if !known {
		return Bad, "does not answer SSH: nothing about it is known"
	}
	return OK, "answers, " + f.OS.ID + " " + f.OS.Version
}

func sshd(ctx context.Context, s *Security, m *config.Machine) (Verdict, string) {
	text, err := s.Machines.Output(ctx, m.Name, "sshd", "-T")
	if err != nil {
		return Unknown, firstLine(err.Error())
	}
	is := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		is[key] = value
	}
	var wrong, right []string
	for _, key := range slices.Sorted(maps.Keys(hardenedSSHD)) {
		if !slices.Contains(hardenedSSHD[key], is[key]) {
			wrong = append(wrong, key+" "+is[key])
		}
		right = append(right, key+" "+is[key])
	}
	return none(wrong, "sshd -T: ", "sshd -T: "+strings.Join(right, ", "))
}

func sysctls(_ context.Context, s *Security, m *config.Machine) (Verdict, string) {
	f, known := s.facts[m.Name]
	if !known {
		return Unknown, "no answer"
	}
	var wrong, right []string
	for _, key := range slices.Sorted(maps.Keys(hardenedSysctls)) {
		said := key + "=" + cmp.Or(f.Sysctls[key], "not there")
		if f.Sysctls[key] != hardenedSysctls[key] {
			wrong = append(wrong, said)
		}
		right = append(right, said)
	}
	return none(wrong, "", strings.Join(right, ", "))
}

func modes(_ context.Context, s *Security, m *config.Machine) (Verdict, string) {
	f, known := s.facts[m.Name]
	if !known {
		return Unknown, "no answer"
	}
	var wrong []string
	for _, path := range slices.Sorted(maps.Keys(f.Files)) {
		file := f.Files[path]
		if file.Mode&0o077 != 0 || file.UID != 0 {
			wrong = append(wrong, modeOf(path, file.Mode))
		}
	}
	if len(f.Files) == 0 {
		return Unknown, "K3s has no files yet"
	}
	return none(wrong, "others may read ", "keys, tokens, kubeconfigs and the datastore are root's alone")
}

func modeOf(path string, mode uint32) string { return fmt.Sprintf("%s (%04o)", path, mode) }

// none is good where nothing was found.
func none(found []string, before, good string) (Verdict, string) {
	if len(found) == 0 {
		return OK, good
	}
	return Bad, before + strings.Join(found, ", ")
}

// firewall is good where the machine drops what no rule of its own table takes.
func firewall(ctx context.Context, s *Security, m *config.Machine) (Verdict, string) {
	if _, known := s.facts[m.Name]; !known {
		return Unknown, "no answer"
	}
	text, err := s.Machines.Output(ctx, m.Name, "nft", "list", "table", "inet", "k3lab")
	if err != nil {
		if strings.Contains(err.Error(), "No such file or directory") || strings.Contains(err.Error(), "not found") {
			return Bad, "there is no nftables table inet k3lab"
		}
		return Unknown, firstLine(err.Error())
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "hook input") && strings.Contains(line, "policy drop") {
			return OK, "nftables table inet k3lab: " + strings.TrimSpace(line)
		}
	}
	return Bad, "nftables table inet k3lab has no input chain with policy drop"
}
