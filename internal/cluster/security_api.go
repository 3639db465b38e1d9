package cluster

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3lab/k3lab/internal/config"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

const noAPI = "the api does not answer"

// asWritten is good where the cluster has the policies of the workspace.
func asWritten(ctx context.Context, s *Security, _ *config.Machine) (Verdict, string) {
	switch {
	case s.Policies == nil:
		return Bad, "kubernetes/policies is not in this workspace: there are no roles for people and no network policies"
	case s.Client == nil:
		return Unknown, noAPI
	}
	changes, unknown, err := s.Client.PlanPolicies(ctx, s.Policies)
	if err != nil {
		return Unknown, firstLine(err.Error())
	}
	var wrong []string
	for _, c := range changes {
		wrong = append(wrong, c.Name)
	}
	for _, namespace := range unknown {
		wrong = append(wrong, "namespace "+namespace+" asks for a policy there is not")
	}
	return none(wrong, "not as kubernetes/policies says: ", "server-side apply of kubernetes/policies would change nothing")
}

// everybody are the groups anyone who reaches the API is in.
var everybody = []string{"system:anonymous", "system:unauthenticated", "system:authenticated", PeopleGroup}

// harmless are what Kubernetes itself gives everybody.
var harmless = []string{"system:basic-user", "system:discovery", "system:public-info-viewer", "system:service-account-issuer-discovery"}

// rightsOfEverybody is good where nobody gets a right by reaching the API alone.
func rightsOfEverybody(ctx context.Context, s *Security, _ *config.Machine) (Verdict, string) {
	if s.Client == nil {
		return Unknown, noAPI
	}
	var wrong []string
	look := func(name string, role rbacv1.RoleRef, subjects []rbacv1.Subject) {
		for _, who := range subjects {
			if who.Kind != rbacv1.ServiceAccountKind && slices.Contains(everybody, who.Name) && !slices.Contains(harmless, role.Name) {
				wrong = append(wrong, fmt.Sprintf("%s gives %s to %s", name, role.Name, who.Name))
			}
		}
	}
	clusterwide, err := s.Client.Core.RbacV1().ClusterRoleBindings().List(ctx, metav1.ListOptions{})
	if err != nil {
		return Unknown, firstLine(err.Error())
	}
	for _, b := range clusterwide.Items {
		look("ClusterRoleBinding "+b.Name, b.RoleRef, b.Subjects)
	}
	namespaced, err := s.Client.Core.RbacV1().RoleBindings(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return Unknown, firstLine(err.Error())
	}
	for _, b := range namespaced.Items {
		look("RoleBinding "+b.Namespace+"/"+b.Name, b.RoleRef, b.Subjects)
	}
	slices.Sort(wrong)
	return none(wrong, "", fmt.Sprintf("%d bindings read, none gives more than discovery to everybody", len(clusterwide.Items)+len(namespaced.Items)))
}

// unlimited is good where nobody but the system is cluster-admin without a name
// that can be withdrawn.
func unlimited(ctx context.Context, s *Security, _ *config.Machine) (Verdict, string) {
	if s.Client == nil {
		return Unknown, noAPI
	}
	list, err := s.Client.Core.RbacV1().ClusterRoleBindings().List(ctx, metav1.ListOptions{})
	if err != nil {
		return Unknown, firstLine(err.Error())
	}
	var wrong, has []string
	for _, b := range list.Items {
		if b.RoleRef.Name != "cluster-admin" && b.RoleRef.Name != rolePrefix+"admin" {
			continue
		}
		for _, who := range b.Subjects {
			name := who.Name
			if who.Kind == rbacv1.ServiceAccountKind {
				name = who.Namespace + "/" + who.Name
			}
			has = append(has, name)
			if who.Kind == rbacv1.ServiceAccountKind && who.Name == "default" {
				wrong = append(wrong, "every pod of namespace "+who.Namespace+", by ClusterRoleBinding "+b.Name)
			}
		}
	}
	slices.Sort(has)
	return none(wrong, "everything may be done by ", "everything may be done by "+strings.Join(slices.Compact(has), ", "))
}

// adminCertificate is good where the kept kubeconfig lasts.
func adminCertificate(_ context.Context, s *Security, _ *config.Machine) (Verdict, string) {
	admin, err := clientcmd.RESTConfigFromKubeConfig(s.Kubeconfig)
	if err != nil {
		return Unknown, "no kubeconfig is kept here"
	}
	block, _ := pem.Decode(admin.CertData)
	if block == nil {
		return Unknown, "the kubeconfig kept here has no client certificate"
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return Unknown, err.Error()
	}
	verdict := OK
	if cert.NotAfter.Before(s.Now().Add(soonOver)) {
		verdict = Bad
	}
	return verdict, "ends " + cert.NotAfter.UTC().Format(time.DateOnly)
}
