package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/kube"
)

// nodeArgs is the annotation in which K3s says with which arguments it runs,
// those of its settings files included.
const nodeArgs = "k3s.io/node-args"

// justNow is how long ago an audit log must have been written at most, after a
// request that belongs there.
const justNow = 10 * time.Second

// argument is the value K3s runs with for a flag, or for the flag of a component
// where flag is "kube-apiserver-arg=audit-log-path"; empty when there is none.
func (s *Security) argument(ctx context.Context, node, flag string) (string, error) {
	if s.Client == nil {
		return "", errors.New(noAPI)
	}
	n, err := s.Client.Core.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	var args []string
	if err := json.Unmarshal([]byte(n.Annotations[nodeArgs]), &args); err != nil {
		return "", fmt.Errorf("annotation %s: %w", nodeArgs, err)
	}
	name, of, isComponents := strings.Cut(flag, "=")
	value := ""
	for i := range len(args) - 1 {
		if args[i] != "--"+name {
			continue
		}
		if !isComponents {
			value = args[i+1]
		} else if v, ok := strings.CutPrefix(strings.TrimPrefix(args[i+1], "--"), of+"="); ok {
			value = v
		}
	}
	return value, nil
}

func kernelDefaults(ctx context.Context, s *Security, m *config.Machine) (Verdict, string) {
	value, err := s.argument(ctx, m.Name, "protect-kernel-defaults")
	switch {
	case err != nil:
		return Unknown, firstLine(err.Error())
	case value != "true":
		return Bad, "K3s runs without --protect-kernel-defaults"
	}
	return OK, "K3s runs with --protect-kernel-defaults"
}

// encrypted is good where K3s says that secrets are encrypted in the datastore.
func encrypted(ctx context.Context, s *Security, m *config.Machine) (Verdict, string) {
	text, err := s.Machines.Output(ctx, m.Name, "k3s", "secrets-encrypt", "status")
	if err != nil {
		return Unknown, firstLine(err.Error())
	}
	status := firstLine(string(text))
	if status != "Encryption Status: Enabled" {
		return Bad, "k3s secrets-encrypt status: " + status
	}
	return OK, "k3s secrets-encrypt status: " + status
}

// audited makes a request that belongs into the server's audit log, and is good
// where that log, which only root may read, was written then.
func audited(ctx context.Context, s *Security, m *config.Machine) (Verdict, string) {
	path, err := s.argument(ctx, m.Name, "kube-apiserver-arg=audit-log-path")
	if err != nil {
		return Unknown, firstLine(err.Error())
	}
	if path == "" {
		return Bad, "the API server runs without --audit-log-path"
	}
	client, err := kube.New(s.Kubeconfig, "https://"+address(m, apiPort))
	if err == nil {
		_, err = client.Core.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	}
	if err != nil {
		return Unknown, firstLine(err.Error())
	}
	facts, err := s.Machines.Facts(ctx, m.Name, converger.FactsRequest{Files: []string{path}})
	if err != nil {
		return Unknown, firstLine(err.Error())
	}
	file, there := facts.Files[path]
	switch {
	case !there:
		return Bad, path + " is not there"
	case file.Mode&0o077 != 0 || file.UID != 0:
		return Bad, "others may read " + modeOf(path, file.Mode)
	case facts.Time.Sub(file.Modified) > justNow:
		return Bad, fmt.Sprintf("%s was last written %s ago, not when a request was made", path, facts.Time.Sub(file.Modified).Round(time.Second))
	}
	return OK, "a request was written to " + path + " when it was made"
}

// podSecurity is good where a privileged pod is refused or warned of. It tells
// which namespaces have pods that the strictest standard would refuse.
func podSecurity(ctx context.Context, s *Security, _ *config.Machine) (Verdict, string) {
	if s.Client == nil {
		return Unknown, noAPI
	}
	warnings := &warned{}
	settings := rest.CopyConfig(s.Client.Config)
	settings.WarningHandler = warnings
	client, err := kubernetes.NewForConfigAndClient(settings, s.Client.HTTP)
	if err != nil {
		return Unknown, err.Error()
	}
	privileged := true
	_, err = client.CoreV1().Pods(metav1.NamespaceDefault).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "k3lab-check-"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "check", Image: "check.invalid/check", SecurityContext: &corev1.SecurityContext{Privileged: &privileged},
		}}},
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	said := ""
	switch {
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "violates PodSecurity"):
		said = "refused"
	case err != nil:
		return Unknown, firstLine(err.Error())
	case slices.ContainsFunc(warnings.texts, func(w string) bool { return strings.Contains(w, "would violate PodSecurity") }):
		said = "warned of"
	default:
		return Bad, "a privileged pod in namespace default is neither refused nor warned of (dry run)"
	}
	failing, err := s.failRestricted(ctx)
	if err != nil {
		return Unknown, firstLine(err.Error())
	}
	if len(failing) == 0 {
		failing = []string{"none"}
	}
	return OK, fmt.Sprintf("a privileged pod in default is %s (dry run); restricted would refuse pods of: %s", said, strings.Join(failing, ", "))
}

// failRestricted labels every namespace restricted, without keeping it, and
// returns those whose pods the API then warns of.
func (s *Security) failRestricted(ctx context.Context) ([]string, error) {
	list, err := s.Client.Core.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var lock sync.Mutex
	var failing []string
	var work []func() error
	for _, n := range list.Items {
		work = append(work, func() error {
			warnings := &warned{}
			settings := rest.CopyConfig(s.Client.Config)
			settings.WarningHandler = warnings
			client, err := kubernetes.NewForConfigAndClient(settings, s.Client.HTTP)
			if err != nil {
				return err
			}
			_, err = client.CoreV1().Namespaces().Patch(ctx, n.Name, types.MergePatchType,
				[]byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
			if err != nil {
				return err
			}
			if slices.ContainsFunc(warnings.texts, func(w string) bool { return strings.Contains(w, "violate the new PodSecurity enforce level") }) {
				lock.Lock()
				defer lock.Unlock()
				failing = append(failing, n.Name)
			}
			return nil
		})
	}
	err = kube.All(work...)
	slices.Sort(failing)
	return failing, err
}

// warned keeps the warnings of the API.
type warned struct {
	mu    sync.Mutex
	texts []string
}

// HandleWarningHeader keeps one.
func (w *warned) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, text)
}
