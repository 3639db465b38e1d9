package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"

	"github.com/k3lab/k3lab/standin/internal/datadir"
	"github.com/k3lab/k3lab/standin/internal/datastore"
	"github.com/k3lab/k3lab/standin/internal/protocol"
	"github.com/k3lab/k3lab/standin/internal/token"
)

// maxTokenRequest is far more than a token needs.
const maxTokenRequest = 64 << 10

// rotateToken takes a new token for servers, and for agents unless theirs was
// another. This server accepts it from now on; the others, and every
// configuration file, still have the old one and need a restart with the new.
func (s *Supervisor) rotateToken(w http.ResponseWriter, r *http.Request) {
	var request protocol.TokenRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxTokenRequest)).Decode(&request); err != nil {
		writeStatus(w, http.StatusBadRequest, err.Error())
		return
	}
	password := token.Random(16)
	if request.NewToken != nil && *request.NewToken != "" {
		parsed, err := token.Parse(*request.NewToken)
		if err != nil {
			writeStatus(w, http.StatusInternalServerError, err.Error())
			return
		}
		password = parsed.Password
	}
	if err := s.changePassword(r.Context(), password); err != nil {
		writeStatus(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (s *Supervisor) changePassword(ctx context.Context, password string) error {
	known, err := s.users()
	if err != nil {
		return err
	}
	old, found := known[token.UserServer]
	if !found {
		return errors.New("server token not found")
	}
	agent := known[token.UserAgent]
	if agent == old {
		agent = password
	}
	dir := s.config.Dir
	if err := WriteUsers(dir.Cred("passwd"), password, agent); err != nil {
		return err
	}
	ca, err := os.ReadFile(dir.TLS("server-ca.crt"))
	if err != nil {
		return err
	}
	if err := datadir.WriteFile(dir.Server("token"), []byte(token.Format(ca, token.UserServer, password)+"\n"), 0o600); err != nil {
		return err
	}
	etcd, err := s.deps.Etcd()
	if err != nil {
		return err
	}
	return datastore.RotateBootstrap(ctx, etcd, dir, old, password)
}
