package desired

import (
	"strings"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
)

const (
	registriesName = "registries.yaml"
	registriesPath = configDir + "/" + registriesName
	// registryCAs are the files of registries' CAs, beside it.
	registryCAs = "registries-*.pem"
)

// registries says where images are pulled from, and removes what said so before.
// The IDs are those that K3s has to be restarted on: it reads the file when it
// starts. One that somebody else has written is not touched.
func registries(lab *config.Lab, in Inputs) (resources []converger.Resource, restartOn []string, err error) {
	r := lab.K3s.Registries
	cas := converger.Leftovers{Dir: configDir, Pattern: registryCAs}
	mirrors, configs := map[string]any{}, map[string]any{}
	for _, m := range r.Mirrors {
		mirror := map[string]any{}
		if m.Endpoints != nil {
			mirror["endpoint"] = m.Endpoints
		}
		if m.Rewrite != nil {
			mirror["rewrite"] = m.Rewrite
		}
		mirrors[m.Host] = mirror
	}
	secret := false
	for _, c := range r.Configs {
		settings, tls := map[string]any{}, map[string]any{}
		if c.PasswordSecret != "" {
			secret = true
			settings["auth"] = map[string]any{"username": c.Username, "password": in.Secrets[c.PasswordSecret]}
		}
		if c.CAFile != "" {
			name := caName(c.Host)
			ca := file(configDir+"/"+name, in.Files[c.CAFile], 0o644)
			resources, restartOn, cas.Keep = append(resources, ca), append(restartOn, ca.ID()), append(cas.Keep, name)
			tls["ca_file"] = configDir + "/" + name
		}
		if c.InsecureSkipVerify {
			tls["insecure_skip_verify"] = true
		}
		if len(tls) > 0 {
			settings["tls"] = tls
		}
		configs[c.Host] = settings
	}
	settings := map[string]any{}
	if len(mirrors) > 0 {
		settings["mirrors"] = mirrors
	}
	if len(configs) > 0 {
		settings["configs"] = configs
	}
	old := converger.Resource{Leftovers: &cas}
	if len(settings) == 0 {
		gone := converger.Resource{Leftovers: &converger.Leftovers{Dir: configDir, Pattern: registriesName, Mark: header}}
		return []converger.Resource{gone, old}, []string{gone.ID()}, nil
	}
	text, err := marshal(settings)
	if err != nil {
		return nil, nil, err
	}
	list := file(registriesPath, text, 0o600)
	list.File.Secret = secret
	return append(resources, list, old), append(restartOn, list.ID()), nil
}

// caName is the file of a registry's CA.
func caName(host string) string {
	return strings.Replace(registryCAs, "*", strings.NewReplacer(":", "_", "*", "any").Replace(host), 1)
}
