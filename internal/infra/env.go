package infra

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// tokensVariable is the Terraform variable that holds the API tokens.
const tokensVariable = "proxmox_api_tokens" //nolint:gosec // a name, no credential

// Env returns the environment in which terraform and tofu work by hand in the
// workspace as they do when k3lab runs them, and writes the files it names. It
// holds the API tokens.
func Env(opts Options) (map[string]string, error) {
	if err := WriteSupport(opts); err != nil {
		return nil, err
	}
	env, err := support(opts.Dir)
	if err != nil {
		return nil, err
	}
	tokens, err := json.Marshal(opts.Tokens)
	if err != nil {
		return nil, err
	}
	env["TF_VAR_"+tokensVariable] = string(tokens)
	return env, nil
}

// support is the part of the environment without secrets.
func support(dir string) (map[string]string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	p := workspacePaths(dir)
	return map[string]string{
		"TF_CLI_CONFIG_FILE": p.rc,
		"SSL_CERT_FILE":      p.bundle,
	}, nil
}

// cleanEnviron picks from a process's environment what terraform, its providers
// and its state backends may need, so that no stray TF_* or PROXMOX_VE_* setting
// changes what is planned, and adds our own.
func cleanEnviron(environ []string, opts Options) map[string]string {
	names := []string{
		"HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SSH_AUTH_SOCK", "TERM", "TMPDIR", "USER",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
		"GNUPGHOME", "KUBECONFIG", "SSL_CERT_DIR", "VAULT_ADDR", "VAULT_TOKEN",
	}
	prefixes := []string{"ARM_", "AWS_", "AZURE_", "CONSUL_HTTP_", "GOOGLE_", "PG", "SOPS_", "TF_HTTP_", "TF_TOKEN_", "XDG_"}
	env := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if slices.Contains(names, name) || slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			env[name] = value
		}
	}
	own, err := support(opts.Dir)
	if err == nil { // opts.Dir is absolute, so it cannot fail
		maps.Copy(env, own)
	}
	return env
}
