package pveapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ticketValidity is Proxmox's: two hours.
const ticketValidity = 2 * time.Hour

// authenticate returns who calls: by API token, or by the ticket of a login.
func (s *Server) authenticate(h *http.Request) (string, error) {
	if a := h.Header.Get("Authorization"); a != "" {
		name, secret, ok := strings.Cut(strings.TrimPrefix(a, "PVEAPIToken="), "=")
		if !ok || !strings.HasPrefix(a, "PVEAPIToken=") {
			return "", denied("No ticket")
		}
		return s.authenticateToken(name, secret)
	}
	c, err := h.Cookie("PVEAuthCookie")
	if err != nil {
		return "", denied("No ticket")
	}
	ticket, err := url.QueryUnescape(c.Value)
	if err != nil {
		return "", denied("permission denied - invalid PVE ticket")
	}
	user, ok := s.checkTicket("PVE", ticket)
	if !ok { // the cookie may have been sent unescaped, in which "+" is itself
		if user, ok = s.checkTicket("PVE", c.Value); !ok {
			return "", denied("permission denied - invalid PVE ticket")
		}
	}
	if h.Method != http.MethodGet {
		if u, ok := s.checkTicket("CSRF", h.Header.Get("CSRFPreventionToken")); !ok || u != user {
			return "", denied("Permission denied - invalid csrf token")
		}
	}
	return user, nil
}

func (s *Server) authenticateToken(name, secret string) (string, error) {
	user, id := splitUser(name)
	if id == "" {
		return "", denied("no tokenid specified")
	}
	for _, t := range append([]Token{s.opts.Token}, s.opts.Tokens...) {
		if t.Name() != name {
			continue
		}
		if subtle.ConstantTimeCompare([]byte(t.Secret), []byte(secret)) != 1 {
			return "", denied("invalid token value!")
		}
		return name, nil
	}
	return "", denied("no such token '%s' for user '%s'", id, user)
}

// ticket is "KIND:user:hex time::signature".
func (s *Server) ticket(kind, user string) string {
	body := fmt.Sprintf("%s:%s:%08X", kind, user, s.now())
	return body + "::" + s.sign(body)
}

func (s *Server) sign(body string) string {
	m := hmac.New(sha256.New, s.state.TicketKey) // set once, at Open
	m.Write([]byte(body))
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}

func (s *Server) checkTicket(kind, ticket string) (user string, ok bool) {
	body, sig, found := strings.Cut(ticket, "::")
	if !found || !hmac.Equal([]byte(sig), []byte(s.sign(body))) {
		return "", false
	}
	parts := strings.Split(body, ":")
	if len(parts) != 3 || parts[0] != kind {
		return "", false
	}
	at, err := strconv.ParseInt(parts[2], 16, 64)
	if err != nil || s.opts.Clock().Sub(time.Unix(at, 0)) > ticketValidity {
		return "", false
	}
	return parts[1], true
}

// privileges returns what a caller may do; all is the administrator's answer.
func (s *Server) privileges(user string) (list []string, all bool) {
	if user == s.opts.Token.Name() || user == "root@pam" {
		return allPrivileges(), true
	}
	for _, t := range s.opts.Tokens {
		if t.Name() == user {
			return t.Privileges, false
		}
	}
	return nil, false
}

func (s *Server) authorize(r *request, privilege string) error {
	if privilege == "" {
		return nil
	}
	list, all := s.privileges(r.user)
	if all || slices.Contains(list, privilege) {
		return nil
	}
	return forbidden(r.aclPath(), privilege)
}

// aclPath is the path on which Proxmox checks a call's privilege.
func (r *request) aclPath() string {
	switch {
	case r.path("vmid") != "":
		return "/vms/" + r.path("vmid")
	case r.path("storage") != "":
		return "/storage/" + r.path("storage")
	case r.path("poolid") != "":
		return "/pool/" + r.path("poolid")
	case r.get("vmid") != "" && strings.HasSuffix(r.http.URL.Path, "/qemu"):
		return "/vms/" + r.get("vmid")
	case r.node() != "":
		return "/nodes/" + r.node()
	}
	return "/"
}

// allPrivileges are those of Proxmox VE 8.4's Administrator role.
func allPrivileges() []string {
	return []string{
		"Datastore.Allocate", "Datastore.AllocateSpace", "Datastore.AllocateTemplate", "Datastore.Audit",
		"Group.Allocate", "Mapping.Audit", "Mapping.Modify", "Mapping.Use", "Permissions.Modify",
		"Pool.Allocate", "Pool.Audit", "Realm.Allocate", "Realm.AllocateUser", "SDN.Allocate", "SDN.Audit", "SDN.Use",
		"Sys.AccessNetwork", "Sys.Audit", "Sys.Console", "Sys.Incoming", "Sys.Modify", "Sys.PowerMgmt", "Sys.Syslog",
		"User.Modify", "VM.Allocate", "VM.Audit", "VM.Backup", "VM.Clone", "VM.Config.CDROM", "VM.Config.CPU",
		"VM.Config.Cloudinit", "VM.Config.Disk", "VM.Config.HWType", "VM.Config.Memory", "VM.Config.Network",
		"VM.Config.Options", "VM.Console", "VM.Migrate", "VM.Monitor", "VM.PowerMgmt", "VM.Snapshot", "VM.Snapshot.Rollback",
	}
}
