package infra

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/k3lab/k3lab/internal/config"
)

// ProvidersPath is where the text of ProvidersFile belongs in a workspace.
const ProvidersPath = "terraform/providers.k3lab.tf"

const providersHeader = `# Written by k3lab from vars/proxmox.yaml; a change here is lost. Terraform wants
# a provider alias and a module call for every endpoint, spelled out.
`

// ProvidersFile returns the text of providers.k3lab.tf: one provider alias and
// one call of module endpoint for each Proxmox endpoint, in file order. It
// depends on nothing but the endpoints' names.
func ProvidersFile(lab *config.Lab) string {
	file := hclwrite.NewEmptyFile()
	body := file.Body()
	for _, e := range lab.Proxmox.Endpoints {
		id := identifier(lab, e.Name)
		body.AppendNewline()
		provider := body.AppendNewBlock("provider", []string{"proxmox"}).Body()
		provider.SetAttributeValue("alias", cty.StringVal(id))
		provider.SetAttributeRaw("endpoint", raw(`local.proxmox.endpoints[%q].url`, e.Name))
		provider.SetAttributeRaw("api_token", raw(`lookup(var.proxmox_api_tokens, %q, null)`, e.Name))

		body.AppendNewline()
		module := body.AppendNewBlock("module", []string{"endpoint_" + id}).Body()
		module.SetAttributeValue("source", cty.StringVal("./modules/endpoint"))
		module.SetAttributeRaw("providers", raw(`{ proxmox = proxmox.%s }`, id))
		module.AppendNewline()
		module.SetAttributeRaw("lab", raw(`local.lab`))
		module.SetAttributeRaw("hypervisors", raw(`local.hypervisors[%q]`, e.Name))
		module.SetAttributeRaw("machines", raw(`{
    for name, machine in local.virtual_machines : name => machine if local.endpoint_of[name] == %q
  }`, e.Name))
	}
	names := []cty.Value{}
	for _, e := range lab.Proxmox.Endpoints {
		names = append(names, cty.StringVal(e.Name))
	}
	body.AppendNewline()
	body.AppendNewBlock("locals", nil).Body().SetAttributeValue("endpoints_called", cty.TupleVal(names))
	return providersHeader + string(hclwrite.Format(file.Bytes()))
}

// StaleProviders reports whether providers.k3lab.tf in the workspace differs
// from what the settings call for, or is missing.
func StaleProviders(dir string, lab *config.Lab) (bool, error) {
	have, err := os.ReadFile(filepath.Join(dir, ProvidersPath))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return !bytes.Equal(have, []byte(ProvidersFile(lab))), nil
}

// raw makes the tokens of an expression. The arguments are quoted by %q, which
// agrees with HCL for every name the settings allow.
func raw(format string, args ...any) hclwrite.Tokens {
	f, diags := hclwrite.ParseConfig(fmt.Appendf(nil, "x = "+format+"\n", args...), "", hcl.InitialPos)
	if diags.HasErrors() {
		panic(diags) // the formats above are constants
	}
	return f.Body().GetAttribute("x").Expr().BuildTokens(nil)
}

// identifier turns an endpoint's name into an HCL identifier no other endpoint
// of the lab has.
func identifier(lab *config.Lab, name string) string {
	taken := map[string]bool{}
	for _, e := range lab.Proxmox.Endpoints {
		id := strings.Map(func(r rune) rune {
			if r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
				return r
			}
			return '_'
		}, e.Name)
		if id == "" || id[0] == '-' || '0' <= id[0] && id[0] <= '9' {
			id = "_" + id
		}
		for taken[id] {
			id += "_"
		}
		if e.Name == name {
			return id
		}
		taken[id] = true
	}
	return ""
}
