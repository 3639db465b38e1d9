// Package supervisor answers what K3s adds to the API's port: /ping and
// /cacerts for everybody, and /v1-k3s/ for servers and agents that hold a
// token.
package supervisor

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/client-go/kubernetes"

	"github.com/k3lab/k3lab/standin/internal/bootstrap"
	"github.com/k3lab/k3lab/standin/internal/datadir"
	"github.com/k3lab/k3lab/standin/internal/protocol"
)

// Config is what a supervisor serves. It travels to the API server's process
// as a file.
type Config struct {
	Dir   datadir.Dir
	Agent protocol.AgentConfig
}

// configFile is where Save leaves the configuration for Load.
func configFile(dir datadir.Dir) string { return dir.Server("etc", "supervisor.json") }

// Save writes the configuration.
func (c Config) Save() (string, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	return configFile(c.Dir), datadir.WriteFile(configFile(c.Dir), data, 0o600)
}

// Load reads what Save wrote.
func Load(file string) (Config, error) {
	var c Config
	data, err := os.ReadFile(file)
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(data, &c)
}

// Deps are the supervisor's connections, made on first use because they need
// the very API server that serves the supervisor.
type Deps struct {
	Kube func() (kubernetes.Interface, error)
	Etcd func() (*clientv3.Client, error)
}

// Supervisor is the HTTP handler.
type Supervisor struct {
	config Config
	deps   Deps
	users  func() (users, error)
	mux    *http.ServeMux
}

// New returns a supervisor.
func New(config Config, deps Deps) *Supervisor {
	s := &Supervisor{
		config: config,
		deps:   Deps{Kube: retryingOnce(deps.Kube), Etcd: retryingOnce(deps.Etcd)},
		users:  func() (users, error) { return readUsers(config.Dir.Cred("passwd")) },
		mux:    http.NewServeMux(),
	}
	s.mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write([]byte("pong"))
	})
	s.mux.HandleFunc("GET /cacerts", s.file("server-ca.crt"))
	agent, server := s.require(roleAgent), s.require(roleServer)
	s.mux.Handle("GET /v1-k3s/readyz", agent(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }))
	s.mux.Handle("GET /v1-k3s/config", agent(s.agentConfig))
	s.mux.Handle("GET /v1-k3s/apiservers", agent(s.apiServers))
	s.mux.Handle("GET /v1-k3s/client-ca.crt", agent(s.file("client-ca.crt")))
	s.mux.Handle("GET /v1-k3s/server-ca.crt", agent(s.file("server-ca.crt")))
	s.mux.Handle("POST /v1-k3s/client-kubelet.crt", agent(s.signKubeletClient))
	s.mux.Handle("POST /v1-k3s/serving-kubelet.crt", agent(s.signKubeletServing))
	s.mux.Handle("GET /v1-k3s/server-bootstrap", server(s.bootstrap))
	s.mux.Handle("PUT /v1-k3s/token", server(s.rotateToken))
	s.mux.Handle("GET /db/info", server(s.members))
	s.mux.HandleFunc("/v1-k3s/", func(w http.ResponseWriter, r *http.Request) {
		agent(func(w http.ResponseWriter, _ *http.Request) {
			writeStatus(w, http.StatusNotFound, "the k3lab stand-in does not serve this path")
		}).ServeHTTP(w, r)
	})
	return s
}

// Wrap puts the supervisor before the API: requests that are not the
// supervisor's go on untouched.
func (s *Supervisor) Wrap(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if Mine(r.URL.Path) {
			s.mux.ServeHTTP(w, r)
			return
		}
		api.ServeHTTP(w, r)
	})
}

// Mine reports whether a path is the supervisor's.
func Mine(path string) bool {
	return path == "/ping" || path == "/cacerts" || path == "/db/info" || strings.HasPrefix(path, "/v1-k3s/")
}

// retryingOnce remembers the first success of open.
func retryingOnce[T any](open func() (T, error)) func() (T, error) {
	var mu sync.Mutex
	var value T
	var opened bool
	return func() (T, error) {
		mu.Lock()
		defer mu.Unlock()
		if opened {
			return value, nil
		}
		v, err := open()
		if err == nil {
			value, opened = v, true
		}
		return v, err
	}
}

func (s *Supervisor) file(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		data, err := os.ReadFile(s.config.Dir.TLS(name))
		if err != nil {
			writeStatus(w, http.StatusInternalServerError, err.Error())
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(data)
	}
}

func (s *Supervisor) agentConfig(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.config.Agent)
}

func (s *Supervisor) bootstrap(w http.ResponseWriter, _ *http.Request) {
	bundle, err := bootstrap.Read(s.config.Dir)
	if err != nil {
		writeStatus(w, http.StatusInternalServerError, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, bundle)
}

func (s *Supervisor) members(w http.ResponseWriter, r *http.Request) {
	info, err := s.listMembers(r.Context())
	if err != nil {
		writeStatus(w, http.StatusInternalServerError, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, info)
}

func (s *Supervisor) listMembers(ctx context.Context) (*protocol.DBInfo, error) {
	etcd, err := s.deps.Etcd()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, backendTimeout)
	defer cancel()
	listed, err := etcd.MemberList(ctx)
	if err != nil {
		return nil, err
	}
	info := &protocol.DBInfo{}
	for _, m := range listed.Members {
		info.Members = append(info.Members, protocol.DBMember{
			ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.IsLearner,
		})
	}
	return info, nil
}
