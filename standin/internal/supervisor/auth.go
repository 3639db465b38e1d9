package supervisor

import (
	"context"
	"crypto/subtle"
	"encoding/csv"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"

	"github.com/k3lab/k3lab/standin/internal/datadir"
	"github.com/k3lab/k3lab/standin/internal/token"
)

// backendTimeout bounds what one request may ask of etcd and the API.
const backendTimeout = 10 * time.Second

// role is what a token entitles to. Every server may do what an agent may.
type role int

const (
	roleNone role = iota
	roleAgent
	roleServer
)

// users maps user names to passwords.
type users map[string]string

// WriteUsers stores the passwords of both users in K3s's file.
func WriteUsers(file, serverPassword, agentPassword string) error {
	var text strings.Builder
	w := csv.NewWriter(&text)
	_ = w.Write([]string{agentPassword, token.UserAgent, token.UserAgent, "k3s:agent"})     // a Builder cannot fail
	_ = w.Write([]string{serverPassword, token.UserServer, token.UserServer, "k3s:server"}) // a Builder cannot fail
	w.Flush()
	return datadir.WriteFile(file, []byte(text.String()), 0o600)
}

// ReadPassword returns one user's password, or "" if there is none yet.
func ReadPassword(file, user string) (string, error) {
	known, err := readUsers(file)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return known[user], err
}

func readUsers(file string) (users, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.FieldsPerRecord = -1
	records, err := r.ReadAll()
	if err != nil {
		return nil, err
	}
	known := users{}
	for _, record := range records {
		if len(record) >= 2 {
			known[record[1]] = record[0]
		}
	}
	return known, nil
}

// require lets a request through if its credentials have the role.
func (s *Supervisor) require(needed role) func(http.HandlerFunc) http.Handler {
	return func(next http.HandlerFunc) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got, err := s.authenticate(r)
			switch {
			case err != nil:
				writeStatus(w, http.StatusInternalServerError, err.Error())
			case got == roleNone && anonymous(r):
				writeStatus(w, http.StatusForbidden, "forbidden")
			case got == roleNone:
				writeStatus(w, http.StatusUnauthorized, "not authorized")
			case got < needed:
				writeStatus(w, http.StatusForbidden, "forbidden")
			default:
				next(w, r)
			}
		})
	}
}

// anonymous reports whether a request has no credentials at all.
func anonymous(r *http.Request) bool {
	_, _, basic := r.BasicAuth()
	return !basic && (r.TLS == nil || len(r.TLS.PeerCertificates) == 0)
}

func (s *Supervisor) authenticate(r *http.Request) (role, error) {
	user, password, ok := r.BasicAuth()
	if !ok {
		return certificateRole(r), nil
	}
	known, err := s.users()
	if err != nil {
		return roleNone, err
	}
	if want, exists := known[user]; exists {
		if subtle.ConstantTimeCompare([]byte(want), []byte(password)) != 1 {
			return roleNone, nil
		}
		if user == token.UserServer {
			return roleServer, nil
		}
		return roleAgent, nil
	}
	return s.bootstrapTokenRole(r.Context(), user, password)
}

// certificateRole accepts a node's own certificate, with which agents go on
// asking after they have joined. The TLS layer has checked it already.
func certificateRole(r *http.Request) role {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return roleNone
	}
	subject := r.TLS.VerifiedChains[0][0].Subject
	for _, group := range subject.Organization {
		switch group {
		case "system:masters":
			return roleServer
		case "system:nodes":
			return roleAgent
		}
	}
	return roleNone
}

// bootstrapTokenRole checks a token made by `k3s token create`.
func (s *Supervisor) bootstrapTokenRole(ctx context.Context, id, secret string) (role, error) {
	t := token.Token{Password: id + "." + secret}
	if !t.IsBootstrap() {
		return roleNone, nil
	}
	kube, err := s.deps.Kube()
	if err != nil {
		return roleNone, err
	}
	ctx, cancel := context.WithTimeout(ctx, backendTimeout)
	defer cancel()
	stored, err := kube.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, bootstrapapi.BootstrapTokenSecretPrefix+id, metav1.GetOptions{})
	if err != nil || stored.Type != corev1.SecretTypeBootstrapToken {
		return roleNone, nil //nolint:nilerr // a token nobody knows is just no token
	}
	if subtle.ConstantTimeCompare(stored.Data[bootstrapapi.BootstrapTokenSecretKey], []byte(secret)) != 1 {
		return roleNone, nil
	}
	if expiry := string(stored.Data[bootstrapapi.BootstrapTokenExpirationKey]); expiry != "" {
		at, err := time.Parse(time.RFC3339, expiry)
		if err != nil || time.Now().After(at) {
			return roleNone, nil //nolint:nilerr // unreadable counts as expired
		}
	}
	return roleAgent, nil
}

// writeStatus answers with the object kubectl and K3s's clients expect.
func writeStatus(w http.ResponseWriter, code int, message string) {
	writeJSON(w, code, metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure,
		Message:  message,
		Reason:   reasonOf(code),
		Code:     int32(code), //nolint:gosec // HTTP codes are small
	})
}

func reasonOf(code int) metav1.StatusReason {
	switch code {
	case http.StatusUnauthorized:
		return metav1.StatusReasonUnauthorized
	case http.StatusForbidden:
		return metav1.StatusReasonForbidden
	case http.StatusNotFound:
		return metav1.StatusReasonNotFound
	case http.StatusBadRequest:
		return metav1.StatusReasonBadRequest
	default:
		return metav1.StatusReasonInternalError
	}
}

func writeJSON(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the client is gone, nobody to tell
}
