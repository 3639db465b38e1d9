package pveapi

import (
	"slices"
	"strings"
)

func storageRoutes() []route {
	const content = "/nodes/{node}/storage/{storage}/content"
	return []route{
		{method: "GET", path: "/storage", privilege: "Datastore.Audit", handle: (*Server).listStorageConfig},
		{method: "GET", path: "/storage/{storage}", privilege: "Datastore.Audit", handle: (*Server).storageConfig},
		{method: "GET", path: "/nodes/{node}/storage", privilege: "Datastore.Audit", handle: (*Server).listStorages},
		{method: "GET", path: "/nodes/{node}/storage/{storage}", privilege: "Datastore.Audit", handle: storageIndex},
		{method: "GET", path: "/nodes/{node}/storage/{storage}/status", privilege: "Datastore.Audit", handle: (*Server).storageStatus},
		{method: "GET", path: content, privilege: "Datastore.Audit", handle: (*Server).listContent},
		{method: "POST", path: content, privilege: "Datastore.AllocateSpace", handle: (*Server).allocateContent},
		{method: "GET", path: content + "/{volume...}", privilege: "Datastore.Audit", handle: (*Server).volumeInfo},
		{method: "PUT", path: content + "/{volume...}", privilege: "Datastore.Allocate", handle: (*Server).changeVolume},
		{method: "DELETE", path: content + "/{volume...}", privilege: "Datastore.Allocate", handle: (*Server).deleteVolume},
		{method: "GET", path: "/nodes/{node}/query-url-metadata", privilege: "Sys.AccessNetwork", handle: (*Server).urlMetadata},
		{method: "POST", path: "/nodes/{node}/storage/{storage}/download-url", privilege: "Datastore.AllocateTemplate", handle: (*Server).downloadURL},
		{
			method: "POST", path: "/nodes/{node}/storage/{storage}/upload", privilege: "Datastore.AllocateTemplate",
			prepare: (*Server).receiveUpload, handle: (*Server).upload,
		},
	}
}

// storagePath is where Proxmox mounts storages.
func (st *Storage) path() string {
	if st.Name == "local" {
		return "/var/lib/vz"
	}
	return "/mnt/pve/" + st.Name
}

// config is the storage's entry in storage.cfg.
func (st *Storage) config() object {
	o := object{"storage": st.Name, "type": st.Type, "content": strings.Join(slices.Sorted(slices.Values(st.Content)), ","), "digest": "0000000000000000000000000000000000000000"}
	switch st.Type {
	case "lvmthin":
		o["vgname"], o["thinpool"] = "pve", "data"
	case "zfspool":
		o["pool"], o["sparse"] = "rpool/data", 1
	default:
		o["path"] = st.path()
	}
	if st.Shared {
		o["shared"] = 1
	}
	return o
}

// storages are the storages of all hypervisors, each name once, sorted.
func (s *Server) storages() []*Storage {
	var out []*Storage
	for i := range s.opts.Hypervisors {
		for j := range s.opts.Hypervisors[i].Storages {
			st := &s.opts.Hypervisors[i].Storages[j]
			if !slices.ContainsFunc(out, func(o *Storage) bool { return o.Name == st.Name }) {
				out = append(out, st)
			}
		}
	}
	slices.SortFunc(out, func(a, b *Storage) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (s *Server) listStorageConfig(r *request) (any, error) {
	out := []object{}
	for _, st := range s.storages() {
		if t := r.get("type"); t == "" || t == st.Type {
			out = append(out, st.config())
		}
	}
	return out, nil
}

func (s *Server) storageConfig(r *request) (any, error) {
	for _, st := range s.storages() {
		if st.Name == r.path("storage") {
			return st.config(), nil
		}
	}
	return nil, failed("storage '%s' does not exist", r.path("storage"))
}

// status is how full the storage is on that node.
func (s *Server) status(node string, st *Storage) object {
	used := min(s.state.used(node, st), st.SizeBytes)
	o := object{
		"type": st.Type, "content": strings.Join(slices.Sorted(slices.Values(st.Content)), ","),
		"active": 1, "enabled": 1, "shared": 0, "total": st.SizeBytes, "used": used, "avail": st.SizeBytes - used,
	}
	if st.Shared {
		o["shared"] = 1
	}
	return o
}

func (s *Server) listStorages(r *request) (any, error) {
	h, err := s.hypervisor(r.node())
	if err != nil {
		return nil, err
	}
	out := []object{}
	for i := range h.Storages {
		st := &h.Storages[i]
		if c := r.get("content"); c != "" && !slices.ContainsFunc(strings.Split(c, ","), st.holds) {
			continue
		}
		if n := r.get("storage"); n != "" && n != st.Name {
			continue
		}
		o := s.status(h.Name, st)
		o["storage"] = st.Name
		if total, ok := o["total"].(int64); ok && total > 0 {
			o["used_fraction"] = float64(o["used"].(int64)) / float64(total)
		}
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b object) int { return strings.Compare(a["storage"].(string), b["storage"].(string)) })
	return out, nil
}

// storageOf is the storage the path names.
func (s *Server) storageOf(r *request) (*Storage, error) {
	h, err := s.hypervisor(r.node())
	if err != nil {
		return nil, err
	}
	return h.storage(r.path("storage"))
}

func storageIndex(s *Server, r *request) (any, error) {
	if _, err := s.storageOf(r); err != nil {
		return nil, err
	}
	out := []object{}
	for _, n := range []string{"content", "download-url", "status", "upload"} {
		out = append(out, object{"subdir": n})
	}
	return out, nil
}

func (s *Server) storageStatus(r *request) (any, error) {
	st, err := s.storageOf(r)
	if err != nil {
		return nil, err
	}
	return s.status(r.node(), st), nil
}
