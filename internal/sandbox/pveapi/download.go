package pveapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	neturl "net/url"
)

// extensions are the file names a content type takes.
func extensions(content string) []string {
	switch content {
	case "iso":
		return []string{".iso", ".img"}
	case "vztmpl":
		return []string{".tar.gz", ".tar.xz", ".tar.zst"}
	case "import":
		return []string{".qcow2", ".raw", ".vmdk", ".ova"}
	case "snippets":
		return []string{""}
	}
	return nil
}

// fileVolume checks a file to be stored and returns its volid.
func (st *Storage) fileVolume(content, file string) (string, error) {
	if !st.files() {
		return "", badParam("storage", "can't upload to storage type '%s'", st.Type)
	}
	if !st.holds(content) {
		return "", badParam("content", "storage '%s' is not configured for content-type '%s'", st.Name, content)
	}
	if file == "" || file != path.Base(file) || strings.HasPrefix(file, ".") {
		return "", badParam("filename", "missing file name or it is not plain")
	}
	if !slices.ContainsFunc(extensions(content), func(e string) bool { return strings.HasSuffix(strings.ToLower(file), e) }) {
		return "", badParam("filename", "wrong file extension")
	}
	return st.Name + ":" + content + "/" + file, nil
}

// fileFormat is what content lists call the format of a file.
func fileFormat(content, file string) string {
	switch content {
	case "iso":
		return "iso"
	case "snippets":
		return "snippet"
	case "vztmpl":
		return "t" + strings.TrimPrefix(path.Ext(file), ".")
	}
	return strings.TrimPrefix(path.Ext(file), ".")
}

func parseURL(s string) (*neturl.URL, error) {
	u, err := neturl.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, badParam("url", "value does not match the regex pattern")
	}
	return u, nil
}

// urlMetadata answers for any URL; nobody is asked.
func (s *Server) urlMetadata(r *request) (any, error) {
	if err := r.require("url"); err != nil {
		return nil, err
	}
	u, err := parseURL(r.get("url"))
	if err != nil {
		return nil, err
	}
	return object{"filename": path.Base(u.Path), "mimetype": "application/octet-stream", "size": s.opts.ImageBytes}, nil
}

// downloadURL puts the sandbox's own image where Proxmox would put the file
// the URL names, and says so.
func (s *Server) downloadURL(r *request) (any, error) {
	if err := r.require("url", "filename", "content"); err != nil {
		return nil, err
	}
	if _, err := parseURL(r.get("url")); err != nil {
		return nil, err
	}
	if r.has("checksum") != r.has("checksum-algorithm") {
		return nil, badParam("checksum", "checksum and checksum-algorithm need each other")
	}
	st, err := s.storageOf(r)
	if err != nil {
		return nil, err
	}
	file, content, node := r.get("filename"), r.get("content"), r.node()
	volid, err := st.fileVolume(content, file)
	if err != nil {
		return nil, err
	}
	if s.state.Volumes[volumeKey(st.home(node), volid)] != nil {
		return nil, failed("refusing to override existing file '%s'", file)
	}
	v := &Volume{
		Node: st.home(node), Volid: volid, Content: content, Format: fileFormat(content, file),
		Size: s.opts.ImageBytes, CTime: s.now(), Notes: s.opts.ImageNote,
	}
	from, sum, algorithm := r.get("url"), r.get("checksum"), r.get("checksum-algorithm")
	return s.fork(r, job{typ: "download", id: file, do: func(_ context.Context, w *worker) error {
		w.log("downloading %s to %s", from, st.file(v))
		w.log("%s", s.opts.ImageNote)
		if sum != "" {
			w.log("%s checksum %s not compared: the content is not that of the URL", algorithm, sum)
		}
		return s.addFile(v, file)
	}}), nil
}

func (s *Server) addFile(v *Volume, file string) error {
	return s.update(func(st *State) error {
		key := volumeKey(v.Node, v.Volid)
		if st.Volumes[key] != nil {
			return failed("refusing to override existing file '%s'", file)
		}
		st.Volumes[key] = v
		return nil
	})
}

// receiveUpload reads a multipart upload; only name and size are kept.
func (s *Server) receiveUpload(r *request) error {
	parts, err := r.http.MultipartReader()
	if err != nil {
		return &apiError{code: http.StatusBadRequest, msg: "upload without multipart content"}
	}
	for {
		p, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &apiError{code: http.StatusBadRequest, msg: "upload broke off: " + err.Error()}
		}
		if p.FileName() == "" {
			b, err := io.ReadAll(io.LimitReader(p, maxBody))
			if err != nil {
				return &apiError{code: http.StatusBadRequest, msg: "upload broke off: " + err.Error()}
			}
			r.params[p.FormName()] = string(b)
			continue
		}
		n, err := io.Copy(io.Discard, p)
		if err != nil {
			return &apiError{code: http.StatusBadRequest, msg: "upload broke off: " + err.Error()}
		}
		r.params["filename"], r.params["size"] = p.FileName(), strconv.FormatInt(n, 10)
	}
}

func (s *Server) upload(r *request) (any, error) {
	if err := r.require("content", "filename"); err != nil {
		return nil, err
	}
	st, err := s.storageOf(r)
	if err != nil {
		return nil, err
	}
	file, content := r.get("filename"), r.get("content")
	volid, err := st.fileVolume(content, file)
	if err != nil {
		return nil, err
	}
	size, err := parseSize(r.get("size"))
	if err != nil {
		return nil, badParam("size", "%v", err)
	}
	v := &Volume{Node: st.home(r.node()), Volid: volid, Content: content, Format: fileFormat(content, file), Size: size, CTime: s.now()}
	return s.fork(r, job{typ: "imgcopy", do: func(_ context.Context, w *worker) error {
		w.log("file size is: %d; the sandbox keeps name and size only", size)
		return s.update(func(state *State) error {
			state.Volumes[volumeKey(v.Node, v.Volid)] = v // an upload overwrites
			return nil
		})
	}}), nil
}
