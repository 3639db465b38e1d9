package desired

import (
	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
)

// sysctls are what kubelet, flannel and kube-proxy need. The vm and kernel ones
// are those kubelet sets itself unless they hold already.
var sysctls = []converger.Sysctl{
	{Key: "fs.inotify.max_user_instances", Value: "8192"},
	{Key: "fs.inotify.max_user_watches", Value: "524288"},
	{Key: "kernel.panic", Value: "10"},
	{Key: "kernel.panic_on_oops", Value: "1"},
	{Key: "net.bridge.bridge-nf-call-iptables", Value: "1"},
	{Key: "net.ipv4.ip_forward", Value: "1"},
	{Key: "vm.overcommit_memory", Value: "1"},
	{Key: "vm.panic_on_oom", Value: "0"},
}

var modules = []string{"br_netfilter", "overlay"}

func operatingSystem(lab *config.Lab, m *config.Machine) []converger.Resource {
	out := []converger.Resource{
		{Hostname: &converger.Hostname{Name: m.Name}},
		{Swap: &converger.Swap{Off: true}},
	}
	for _, name := range modules {
		out = append(out, converger.Resource{Module: &converger.Module{Name: name}})
	}
	for _, s := range sysctls {
		out = append(out, converger.Resource{Sysctl: &s})
	}
	for _, name := range lab.OS.Packages {
		out = append(out, converger.Resource{Package: &converger.Package{Name: name}})
	}
	return tagged(TagOS, out...)
}
