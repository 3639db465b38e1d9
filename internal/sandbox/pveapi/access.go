package pveapi

import (
	"crypto/subtle"
	"slices"
	"strings"
)

func accessRoutes() []route {
	return []route{
		{method: "POST", path: "/access/ticket", public: true, handle: (*Server).login},
		{method: "GET", path: "/access/permissions", handle: (*Server).permissions},
		{method: "GET", path: "/access/users", handle: (*Server).listUsers},
		{method: "GET", path: "/access/users/{userid}/token", handle: (*Server).listTokens},
		{method: "GET", path: "/access/users/{userid}/token/{tokenid}", handle: (*Server).tokenInfo},
	}
}

// login trades a password, or a ticket still valid, for a new ticket.
func (s *Server) login(r *request) (any, error) {
	if err := r.require("username", "password"); err != nil {
		return nil, err
	}
	user := r.get("username")
	if !strings.Contains(user, "@") && r.get("realm") != "" {
		user += "@" + r.get("realm")
	}
	want, known := s.opts.Passwords[user]
	ok := known && subtle.ConstantTimeCompare([]byte(want), []byte(r.get("password"))) == 1
	if u, valid := s.checkTicket("PVE", r.get("password")); valid && u == user {
		ok = true
	}
	if !ok {
		return nil, denied("authentication failure")
	}
	return object{
		"username": user, "ticket": s.ticket("PVE", user), "CSRFPreventionToken": s.ticket("CSRF", user),
		"clustername": s.opts.ClusterName, "cap": object{},
	}, nil
}

// permissions lists what the caller, or the token named, may do.
func (s *Server) permissions(r *request) (any, error) {
	who := r.user
	if u := r.get("userid"); u != "" && u != who {
		if err := s.authorize(r, "Sys.Audit"); err != nil {
			return nil, err
		}
		who = u
	}
	list, _ := s.privileges(who)
	set := object{}
	for _, p := range list {
		set[p] = 1
	}
	if want := r.get("path"); want != "" {
		return object{want: set}, nil
	}
	out := object{}
	for _, p := range []string{"/", "/access", "/access/groups", "/mapping", "/nodes", "/pool", "/sdn", "/storage", "/vms"} {
		out[p] = set
	}
	return out, nil
}

// users are those who have a password or a token, sorted.
func (s *Server) users() []string {
	var out []string
	for u := range s.opts.Passwords {
		out = append(out, u)
	}
	for _, t := range append([]Token{s.opts.Token}, s.opts.Tokens...) {
		out = append(out, t.User)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (s *Server) listUsers(*request) (any, error) {
	out := []object{}
	for _, u := range s.users() {
		_, realm, _ := strings.Cut(u, "@")
		out = append(out, object{"userid": u, "enable": 1, "expire": 0, "realm-type": realm})
	}
	return out, nil
}

// tokensOf lists a user's API tokens without their secrets.
func (s *Server) tokensOf(user string) []object {
	out := []object{}
	for i, t := range append([]Token{s.opts.Token}, s.opts.Tokens...) {
		if t.User != user {
			continue
		}
		separate := 1
		if i == 0 {
			separate = 0
		}
		out = append(out, object{"tokenid": t.ID, "expire": 0, "privsep": separate})
	}
	return out
}

func (s *Server) listTokens(r *request) (any, error) { return s.tokensOf(r.path("userid")), nil }

func (s *Server) tokenInfo(r *request) (any, error) {
	for _, t := range s.tokensOf(r.path("userid")) {
		if t["tokenid"] == r.path("tokenid") {
			delete(t, "tokenid")
			return t, nil
		}
	}
	return nil, failed("no such token '%s' for user '%s'", r.path("tokenid"), r.path("userid"))
}
