package pveapi

func clusterRoutes() []route {
	empty := func(*Server, *request) (any, error) { return []object{}, nil }
	return []route{
		{method: "GET", path: "/version", handle: version},
		{method: "GET", path: "/nodes/{node}/version", handle: version},
		{method: "GET", path: "/cluster", handle: clusterIndex},
		{method: "GET", path: "/cluster/status", privilege: "Sys.Audit", handle: (*Server).clusterStatus},
		{method: "GET", path: "/cluster/nextid", handle: (*Server).nextID},
		{method: "GET", path: "/cluster/resources", handle: (*Server).resources},
		{method: "GET", path: "/cluster/options", handle: func(*Server, *request) (any, error) {
			return object{"keyboard": "en-us", "mac_prefix": "BC:24:11"}, nil
		}},
		{method: "GET", path: "/cluster/backup", privilege: "Sys.Audit", handle: empty},
		{method: "GET", path: "/cluster/ha/resources", privilege: "Sys.Audit", handle: empty},
		{method: "GET", path: "/cluster/ha/groups", privilege: "Sys.Audit", handle: empty},
	}
}

// release is the version of Proxmox VE the simulator behaves like.
const release = "8.4.1"

func version(*Server, *request) (any, error) {
	return object{"version": release, "release": "8.4", "repoid": "2a5fa54a8503f96d"}, nil
}

func clusterIndex(*Server, *request) (any, error) {
	out := []object{}
	for _, n := range []string{"backup", "firewall", "ha", "nextid", "options", "resources", "status", "tasks"} {
		out = append(out, object{"name": n})
	}
	return out, nil
}

// clusterStatus has an entry for the cluster only when there are several nodes.
func (s *Server) clusterStatus(*request) (any, error) {
	out := []object{}
	if n := len(s.opts.Hypervisors); n > 1 {
		out = append(out, object{"type": "cluster", "id": "cluster", "name": s.opts.ClusterName, "nodes": n, "quorate": 1, "version": n})
	}
	for i, h := range s.opts.Hypervisors {
		local := 0
		if i == 0 {
			local = 1
		}
		out = append(out, object{
			"type": "node", "id": "node/" + h.Name, "name": h.Name, "nodeid": i + 1, "ip": h.Address, "online": 1, "local": local, "level": "",
		})
	}
	return out, nil
}

// nextID answers with text, as Proxmox does.
func (s *Server) nextID(r *request) (any, error) {
	if text := r.get("vmid"); text != "" {
		id, err := s.checkNewVMID("vmid", text)
		if err != nil {
			return nil, err
		}
		if s.state.VMs[id] != nil {
			return nil, badParam("vmid", "VM %d already exists", id)
		}
		return text, nil
	}
	id := 100
	for s.state.VMs[id] != nil {
		id++
	}
	return vmidText(id), nil
}

// resources lists what the cluster has; callers see VMs only with VM.Audit.
func (s *Server) resources(r *request) (any, error) {
	want := r.get("type")
	out := []object{}
	if (want == "" || want == "vm") && s.authorize(r, "VM.Audit") == nil {
		for _, id := range s.state.vmids() {
			out = append(out, s.resource(s.state.VMs[id]))
		}
	}
	for i := range s.opts.Hypervisors {
		h := &s.opts.Hypervisors[i]
		if want == "" || want == "node" {
			out = append(out, s.nodeBrief(h))
		}
		if want == "" || want == "storage" {
			for j := range h.Storages {
				out = append(out, s.storageResource(h, &h.Storages[j]))
			}
		}
	}
	if want == "" || want == "pool" {
		for _, id := range sortedNames(s.state.Pools) {
			out = append(out, object{"type": "pool", "id": "/pool/" + id, "pool": id})
		}
	}
	return out, nil
}

func (s *Server) storageResource(h *Hypervisor, st *Storage) object {
	o := s.status(h.Name, st)
	return object{
		"type": "storage", "id": "storage/" + h.Name + "/" + st.Name, "storage": st.Name, "node": h.Name, "status": "available",
		"plugintype": st.Type, "content": o["content"], "shared": o["shared"], "disk": o["used"], "maxdisk": o["total"],
	}
}

// nodeBrief is a hypervisor in lists.
func (s *Server) nodeBrief(h *Hypervisor) object {
	var mem int64
	for _, id := range s.state.vmids() {
		vm := s.state.VMs[id]
		if vm.Node != h.Name {
			continue
		}
		if s.reconcile(vm); vm.Running {
			mem += int64(vm.memoryMiB()) << 20
		}
	}
	o := object{
		"id": "node/" + h.Name, "node": h.Name, "type": "node", "status": "online", "level": "", "cpu": 0.01, "maxcpu": h.Cores,
		"mem": mem, "maxmem": int64(h.MemoryMiB) << 20, "uptime": max(1, s.now()-s.state.Created), "ssl_fingerprint": s.certs.fingerprint(),
	}
	if st, err := h.storage("local"); err == nil {
		o["disk"], o["maxdisk"] = min(s.state.used(h.Name, st), st.SizeBytes), st.SizeBytes
	}
	return o
}
