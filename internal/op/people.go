package op

import (
	"cmp"
	"context"
	"path/filepath"
	"strings"
	"time"

	"github.com/k3lab/k3lab/internal/cluster"
	"github.com/k3lab/k3lab/internal/fault"
)

// The lifetimes a certificate may be asked for: Kubernetes signs none for less
// than ten minutes, and a year is what the cluster's own have.
const (
	DefaultLifetime = 12 * time.Hour
	shortestLife    = 10 * time.Minute
	longestLife     = 365 * 24 * time.Hour
)

// IssueOptions are the options of Issue.
type IssueOptions struct {
	LabOptions
	User     string
	Role     string
	Lifetime time.Duration
	Output   string // the file to write; empty: in the workspace, .k3lab/people
	Print    bool   // write no file
}

// IssueResult is a kubeconfig that was issued.
type IssueResult struct {
	Path    string // empty: none was written
	Until   time.Time
	Content []byte // secret
}

// Issue gives a person a role in the cluster and a kubeconfig whose certificate
// ends by itself. Issuing another role takes the one before away.
func Issue(ctx context.Context, opts IssueOptions) (_ *IssueResult, err error) {
	if err := cluster.CheckPerson(opts.User, opts.Role); err != nil {
		return nil, err
	}
	if opts.Lifetime < shortestLife || opts.Lifetime > longestLife {
		return nil, fault.New(fault.Failed, opts.Lifetime.String(), "--lifetime 12h", "a certificate lives from 10m to 8760h")
	}
	s, err := open(opts.LabOptions)
	if err != nil {
		return nil, err
	}
	defer s.closeInto(&err)
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	admin, err := s.fetch(ctx)
	if err != nil {
		return nil, err
	}
	client, err := cluster.Connect(ctx, admin, apiURLs(s.lab))
	if err != nil {
		return nil, unanswered(err)
	}
	if err := client.CheckRole(ctx, opts.Role); err != nil {
		return nil, err
	}
	credentials, err := client.Issue(ctx, opts.User, opts.Lifetime)
	if err != nil {
		return nil, err
	}
	result := &IssueResult{Until: credentials.Until}
	if result.Content, err = cluster.PersonKubeconfig(admin, opts.User, credentials); err != nil {
		return nil, err
	}
	if err := client.Bind(ctx, opts.User, opts.Role, credentials.Until); err != nil {
		return nil, err
	}
	if opts.Print {
		return result, nil
	}
	path := cmp.Or(opts.Output, s.dir.Path(".k3lab/people/"+opts.User+".kubeconfig"))
	if result.Path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	return result, cluster.WriteKubeconfig(result.Path, result.Content)
}

// RevokeResult is what Revoke did and found.
type RevokeResult struct {
	Bound  bool     // the person had a role
	Others []string // other bindings that still name the person
}

// Revoke takes a person's role away, whatever certificates are about. Bindings of
// that name which k3lab has not made are left, and named.
func Revoke(ctx context.Context, opts LabOptions, name string) (_ *RevokeResult, err error) {
	if err := cluster.CheckPerson(name, ""); err != nil {
		return nil, err
	}
	client, closing, err := administrator(ctx, opts)
	if err != nil {
		return nil, err
	}
	defer closing(&err)
	result := &RevokeResult{}
	if result.Bound, result.Others, err = client.Withdraw(ctx, name); err != nil {
		return nil, err
	}
	if !result.Bound && len(result.Others) == 0 {
		return nil, fault.New(fault.Failed, name, "k3lab kubeconfig --list", "nobody of that name has a role")
	}
	return result, nil
}

// People lists who has been given access, by name.
func People(ctx context.Context, opts LabOptions) (_ []cluster.Person, err error) {
	client, closing, err := administrator(ctx, opts)
	if err != nil {
		return nil, err
	}
	defer closing(&err)
	return client.People(ctx)
}

// administrator opens the workspace and speaks to its API as an administrator.
func administrator(ctx context.Context, opts LabOptions) (*cluster.Client, func(*error), error) {
	s, err := open(opts)
	if err != nil {
		return nil, nil, err
	}
	client, err := s.client(ctx)
	if err != nil {
		err = unanswered(err)
		s.closeInto(&err)
		return nil, nil, err
	}
	return client, s.closeInto, nil
}

func unanswered(err error) error {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return fault.New(fault.Unreachable, "api", "k3lab status", "%s", text)
}
