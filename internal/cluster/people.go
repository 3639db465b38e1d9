package cluster

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3lab/k3lab/internal/fault"
)

// PeopleGroup is the group in the certificate of every person. No right is bound
// to it: rights are bound to the person, so that they can be withdrawn.
const PeopleGroup = "k3lab:people"

// Roles are the roles a person can be given, the least one first. Each is the
// ClusterRole k3lab:NAME of the policies.
var Roles = [...]string{"viewer", "operator", "admin"}

const (
	personLabel   = "k3lab.io/person"
	untilNote     = "k3lab.io/certificate-until" // RFC 3339
	bindingPrefix = "k3lab:person:"
	rolePrefix    = "k3lab:"
	rbacGroup     = "rbac.authorization.k8s.io"
)

// personName is what may stand in a certificate as a person's name. A colon would
// make names of Kubernetes' own possible.
var personName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._@-]{0,61}[a-z0-9])?$`)

// CheckPerson refuses a name or role that cannot be.
func CheckPerson(name, role string) error {
	if !personName.MatchString(name) {
		return fault.New(fault.Failed, name, "--user anna, or --user anna@example.org",
			"a person's name is a to z, 0 to 9 and . _ @ - between, at most 63 characters")
	}
	if role != "" && !slices.Contains(Roles[:], role) {
		return fault.New(fault.Failed, role, "--role viewer, operator or admin", "there is no role of that name")
	}
	return nil
}

// Person is somebody k3lab has given access to the cluster.
type Person struct {
	Name  string    `json:"name"`
	Role  string    `json:"role"`
	Until time.Time `json:"until"` // of the certificate issued last
}

// People lists everybody who has access, by name.
func (c *Client) People(ctx context.Context) ([]Person, error) {
	list, err := c.Core.RbacV1().ClusterRoleBindings().List(ctx, metav1.ListOptions{LabelSelector: personLabel})
	if err != nil {
		return nil, fmt.Errorf("people: %w", err)
	}
	people := []Person{}
	for _, b := range list.Items {
		name, ok := strings.CutPrefix(b.Name, bindingPrefix)
		if !ok {
			continue
		}
		p := Person{Name: name, Role: strings.TrimPrefix(b.RoleRef.Name, rolePrefix)}
		// One that was bound by hand says nothing of a certificate.
		p.Until, _ = time.Parse(time.RFC3339, b.Annotations[untilNote])
		people = append(people, p)
	}
	slices.SortFunc(people, func(a, b Person) int { return cmp.Compare(a.Name, b.Name) })
	return people, nil
}

// CheckRole is fault.Invalid unless the cluster has the role: a binding to one
// that is not there gives no right and no error.
func (c *Client) CheckRole(ctx context.Context, role string) error {
	_, err := c.Core.RbacV1().ClusterRoles().Get(ctx, rolePrefix+role, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fault.New(fault.Invalid, role, "k3lab up, with kubernetes/policies in the workspace", "the cluster has no ClusterRole %s", rolePrefix+role)
	}
	if err != nil {
		return fmt.Errorf("role %s: %w", role, err)
	}
	return nil
}

// Bind gives the person that role and no other, and notes until when the
// certificate is good.
func (c *Client) Bind(ctx context.Context, name, role string, until time.Time) error {
	bindings := c.Core.RbacV1().ClusterRoleBindings()
	want := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{
			Name:        bindingPrefix + name,
			Labels:      map[string]string{personLabel: "", "app.kubernetes.io/managed-by": "k3lab"},
			Annotations: map[string]string{untilNote: until.UTC().Format(time.RFC3339)},
		},
		Subjects: []rbacv1.Subject{{APIGroup: rbacGroup, Kind: rbacv1.UserKind, Name: name}},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacGroup, Kind: "ClusterRole", Name: rolePrefix + role},
	}
	options := metav1.UpdateOptions{FieldManager: FieldManager}
	there, err := bindings.Get(ctx, want.Name, metav1.GetOptions{})
	switch {
	case err == nil && there.RoleRef == want.RoleRef:
		want.ResourceVersion = there.ResourceVersion
		_, err = bindings.Update(ctx, want, options)
	case err == nil: // what a binding refers to cannot be changed
		if err = bindings.Delete(ctx, want.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &there.UID}}); err != nil {
			break
		}
		fallthrough
	case apierrors.IsNotFound(err):
		_, err = bindings.Create(ctx, want, metav1.CreateOptions{FieldManager: FieldManager})
	}
	if err != nil {
		return fmt.Errorf("binding of %s: %w", name, err)
	}
	return nil
}

// Withdraw takes a person's role away: every certificate of that name is worth
// nothing from then on. Other bindings that name the person are not k3lab's and
// are returned, as "RoleBinding media/x". There may be none of ours: bound is
// false then.
func (c *Client) Withdraw(ctx context.Context, name string) (bound bool, others []string, err error) {
	err = c.Core.RbacV1().ClusterRoleBindings().Delete(ctx, bindingPrefix+name, metav1.DeleteOptions{})
	switch {
	case err == nil:
		bound = true
	case !apierrors.IsNotFound(err):
		return false, nil, fmt.Errorf("binding of %s: %w", name, err)
	}
	clusterwide, err := c.Core.RbacV1().ClusterRoleBindings().List(ctx, metav1.ListOptions{})
	if err != nil {
		return bound, nil, fmt.Errorf("bindings: %w", err)
	}
	for _, b := range clusterwide.Items {
		if names(b.Subjects, name) {
			others = append(others, "ClusterRoleBinding "+b.Name)
		}
	}
	namespaced, err := c.Core.RbacV1().RoleBindings(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return bound, others, fmt.Errorf("bindings: %w", err)
	}
	for _, b := range namespaced.Items {
		if names(b.Subjects, name) {
			others = append(others, "RoleBinding "+b.Namespace+"/"+b.Name)
		}
	}
	return bound, others, nil
}

// names reports whether the subjects are, or hold, a certificate of that person.
func names(subjects []rbacv1.Subject, person string) bool {
	return slices.ContainsFunc(subjects, func(s rbacv1.Subject) bool {
		return s.Kind == rbacv1.UserKind && s.Name == person || s.Kind == rbacv1.GroupKind && s.Name == PeopleGroup
	})
}
