package pveapi

import (
	"net/netip"
	"strings"
)

func agentRoutes() []route {
	const agent = "/nodes/{node}/qemu/{vmid}/agent"
	return []route{
		{method: "POST", path: agent + "/ping", privilege: "VM.Monitor", handle: (*Server).agentPing},
		{method: "GET", path: agent + "/network-get-interfaces", privilege: "VM.Monitor", handle: (*Server).agentInterfaces},
		{method: "GET", path: agent + "/get-host-name", privilege: "VM.Monitor", handle: (*Server).agentHostName},
		{method: "GET", path: agent + "/get-osinfo", privilege: "VM.Monitor", handle: (*Server).agentOS},
	}
}

// agent is the VM whose guest agent is asked, provided that it would answer.
func (s *Server) agent(r *request) (*VM, error) {
	vm, err := s.vm(r)
	if err != nil {
		return nil, err
	}
	a, err := parseProps(vm.Config["agent"], "enabled")
	switch {
	case err != nil || !truth(a["enabled"]):
		return nil, failed("No QEMU guest agent configured")
	case !vm.Running:
		return nil, failed("VM %d is not running", vm.VMID)
	case s.faults.agentSilent(vm.VMID):
		return nil, failed("QEMU guest agent is not running")
	}
	return vm, nil
}

func (s *Server) agentPing(r *request) (any, error) {
	if _, err := s.agent(r); err != nil {
		return nil, err
	}
	return object{"result": object{}}, nil
}

func (s *Server) agentHostName(r *request) (any, error) {
	vm, err := s.agent(r)
	if err != nil {
		return nil, err
	}
	return object{"result": object{"host-name": vm.name()}}, nil
}

func (s *Server) agentOS(r *request) (any, error) {
	if _, err := s.agent(r); err != nil {
		return nil, err
	}
	return object{"result": object{"id": "debian", "name": "Debian GNU/Linux", "pretty-name": "Debian GNU/Linux (k3lab sandbox)"}}, nil
}

// agentInterfaces reports the addresses cloud-init gave the machine.
func (s *Server) agentInterfaces(r *request) (any, error) {
	vm, err := s.agent(r)
	if err != nil {
		return nil, err
	}
	spec, err := vm.spec()
	if err != nil {
		return nil, err
	}
	address := func(ip string, bits int) object {
		kind := "ipv4"
		if strings.Contains(ip, ":") {
			kind = "ipv6"
		}
		return object{"ip-address": ip, "ip-address-type": kind, "prefix": bits}
	}
	out := []object{{"name": "lo", "hardware-address": "00:00:00:00:00:00", "ip-addresses": []object{address("127.0.0.1", 8), address("::1", 128)}}}
	for i, n := range spec.NICs {
		addresses := []object{}
		if p, err := netip.ParsePrefix(spec.CloudInit.Addresses[i]); err == nil {
			addresses = append(addresses, address(p.Addr().String(), p.Bits()))
		}
		out = append(out, object{"name": "eth" + strings.TrimPrefix(n.Key, "net"), "hardware-address": strings.ToLower(n.MAC), "ip-addresses": addresses})
	}
	return object{"result": out}, nil
}
