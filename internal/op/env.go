package op

import (
	"maps"
	"slices"
	"strings"

	"github.com/k3lab/k3lab/internal/infra"
	"github.com/k3lab/k3lab/internal/secrets"
)

// Env returns shell lines that export what terraform, ansible and kubectl need
// when they are used by hand in the workspace. They hold the API tokens.
func Env(opts LabOptions) ([]string, error) {
	s, err := openSettings(opts)
	if err != nil {
		return nil, err
	}
	if s.secrets, err = secrets.Open(s.dir.Root()); err != nil {
		return nil, err
	}
	env, err := infra.Env(s.infraOptions())
	if err != nil {
		return nil, err
	}
	env["KUBECONFIG"] = s.dir.Kubeconfig()
	env["ANSIBLE_CONFIG"] = s.dir.Path("ansible/ansible.cfg")
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		lines = append(lines, "export "+name+"="+quote(env[name]))
	}
	return lines, nil
}

// quote makes a word of the shell out of any text.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
