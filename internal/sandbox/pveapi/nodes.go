package pveapi

import "fmt"

func nodeRoutes() []route {
	const node = "/nodes/{node}"
	return []route{
		{method: "GET", path: "/nodes", handle: (*Server).listNodes},
		{method: "GET", path: node, handle: nodeIndex},
		{method: "GET", path: node + "/status", privilege: "Sys.Audit", handle: (*Server).nodeStatus},
		{method: "GET", path: node + "/network", privilege: "Sys.Audit", handle: (*Server).nodeNetwork},
		{method: "GET", path: node + "/dns", privilege: "Sys.Audit", handle: func(*Server, *request) (any, error) {
			return object{"dns1": "127.0.0.1", "search": "localdomain"}, nil
		}},
		{method: "GET", path: node + "/time", privilege: "Sys.Audit", handle: func(s *Server, _ *request) (any, error) {
			return object{"timezone": "UTC", "time": s.now(), "localtime": s.now()}, nil
		}},
		{method: "POST", path: node + "/startall", privilege: "VM.PowerMgmt", handle: (*Server).startAll},
		{method: "POST", path: node + "/stopall", privilege: "VM.PowerMgmt", handle: (*Server).stopAll},
		{method: "GET", path: node + "/lxc", privilege: "VM.Audit", handle: func(*Server, *request) (any, error) { return []object{}, nil }},
	}
}

func nodeIndex(*Server, *request) (any, error) {
	out := []object{}
	for _, n := range []string{"dns", "firewall", "lxc", "network", "qemu", "status", "storage", "tasks", "time", "version", "vzdump"} {
		out = append(out, object{"name": n})
	}
	return out, nil
}

func (s *Server) listNodes(*request) (any, error) {
	out := []object{}
	for i := range s.opts.Hypervisors {
		out = append(out, s.nodeBrief(&s.opts.Hypervisors[i]))
	}
	return out, nil
}

func (s *Server) nodeStatus(r *request) (any, error) {
	h, err := s.hypervisor(r.node())
	if err != nil {
		return nil, err
	}
	b := s.nodeBrief(h)
	total, used := b["maxmem"].(int64), b["mem"].(int64)
	o := object{
		"pveversion": "pve-manager/" + release + "/2a5fa54a8503f96d", "kversion": "Linux 6.8.12-9-pve", "uptime": b["uptime"], "cpu": b["cpu"],
		"loadavg": []string{"0.00", "0.00", "0.00"}, "wait": 0, "idle": 0,
		"cpuinfo": object{"cpus": h.Cores, "cores": h.Cores, "sockets": 1, "model": "k3lab sandbox", "mhz": "2000.000", "hvm": "1", "user_hz": 100, "flags": ""},
		"memory":  object{"total": total, "used": used, "free": total - used},
		"swap":    object{"total": 0, "used": 0, "free": 0},
		"ksm":     object{"shared": 0},
		"boot-info": object{
			"mode": "efi", "secureboot": 0,
		},
		"current-kernel": object{"sysname": "Linux", "release": "6.8.12-9-pve", "version": "k3lab sandbox", "machine": "x86_64"},
	}
	if d, ok := b["maxdisk"].(int64); ok {
		u := b["disk"].(int64)
		o["rootfs"] = object{"total": d, "used": u, "free": d - u, "avail": d - u}
	}
	return o, nil
}

// nodeNetwork lists the bridges; clients read a node's address from them.
func (s *Server) nodeNetwork(r *request) (any, error) {
	h, err := s.hypervisor(r.node())
	if err != nil {
		return nil, err
	}
	bridges := h.Bridges
	if len(bridges) == 0 {
		bridges = []string{"vmbr0"}
	}
	out := []object{}
	for i, b := range bridges {
		if t := r.get("type"); t != "" && t != "bridge" && t != "any_bridge" {
			break
		}
		o := object{
			"iface": b, "type": "bridge", "active": 1, "autostart": 1, "priority": i + 1, "families": []string{"inet"},
			"method": "manual", "method6": "manual", "bridge_ports": fmt.Sprintf("eno%d", i+1), "bridge_vlan_aware": 1,
		}
		if i == 0 {
			o["method"], o["address"], o["netmask"], o["cidr"], o["gateway"] = "static", h.Address, "24", h.Address+"/24", h.Address
		}
		out = append(out, o)
	}
	return out, nil
}
