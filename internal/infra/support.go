package infra

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/hashicorp/go-version"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/fault"
)

// pluginSource is the address of the provider the k3lab binary serves.
const pluginSource = "k3lab.internal/k3lab/k3lab"

// WriteSupport writes what Terraform needs beside the configuration, by k3lab
// and by hand alike: the CLI configuration, the CA bundle and the link by which
// Terraform finds provider k3lab. What is already right is not touched.
func WriteSupport(opts Options) error {
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return err
	}
	p := workspacePaths(dir)
	plugins := p.plugins
	if err := linkPlugin(plugins, opts); err != nil {
		return err
	}
	// Editors and terraform without our environment look here; k3lab does not
	// depend on it, so a home that cannot be written is no failure.
	if home, err := os.UserHomeDir(); err == nil {
		_ = linkPlugin(filepath.Join(home, ".terraform.d", "plugins"), opts)
	}
	rc, err := cliConfig(plugins, opts.Mirror)
	if err != nil {
		return err
	}
	if err := writeChanged(p.rc, rc); err != nil {
		return err
	}
	bundle, err := caBundle(dir, opts.Lab)
	if err != nil {
		return err
	}
	return writeChanged(p.bundle, bundle)
}

// cliConfig returns the text of terraform.rc: provider k3lab comes from
// plugins, what the mirror holds comes from there and from nowhere else, the
// rest from its registry.
func cliConfig(plugins, mirror string) ([]byte, error) {
	file := hclwrite.NewEmptyFile()
	file.Body().SetAttributeValue("disable_checkpoint", cty.True)
	install := file.Body().AppendNewBlock("provider_installation", nil).Body()
	from := func(dir string, include []string) {
		block := install.AppendNewBlock("filesystem_mirror", nil).Body()
		block.SetAttributeValue("path", cty.StringVal(dir))
		block.SetAttributeValue("include", stringList(include))
	}
	from(plugins, []string{pluginSource})
	elsewhere := []string{pluginSource}
	if mirror != "" {
		dir, err := filepath.Abs(mirror)
		if err != nil {
			return nil, err
		}
		// <host>/<namespace>/<type>; a link in place of a directory is not followed by Terraform.
		held, err := filepath.Glob(filepath.Join(dir, "*", "*", "*"))
		if err != nil {
			return nil, err
		}
		var sources []string
		for _, path := range held {
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				return nil, err
			}
			sources = append(sources, filepath.ToSlash(rel))
		}
		if len(sources) == 0 {
			return nil, fault.New(fault.Invalid, mirror, "make build", "the provider mirror holds no provider")
		}
		from(dir, sources)
		elsewhere = append(elsewhere, sources...)
	}
	install.AppendNewBlock("direct", nil).Body().SetAttributeValue("exclude", stringList(elsewhere))
	return hclwrite.Format(file.Bytes()), nil
}

func stringList(items []string) cty.Value {
	values := make([]cty.Value, len(items))
	for i, item := range items {
		values[i] = cty.StringVal(item)
	}
	return cty.ListVal(values)
}

// linkPlugin links the k3lab binary into a plugin directory laid out as
// Terraform wants it.
func linkPlugin(plugins string, opts Options) error {
	v := pluginVersion(opts.Version)
	link := filepath.Join(plugins, filepath.FromSlash(pluginSource), v,
		runtime.GOOS+"_"+runtime.GOARCH, "terraform-provider-k3lab_v"+v)
	if target, err := os.Readlink(link); err == nil && target == opts.PluginBinary {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	return renameio.Symlink(opts.PluginBinary, link)
}

// pluginVersion is the version under which Terraform knows the binary: three
// numbers, because a pre-release is never chosen without being asked for, and
// not all zero, which Terraform takes for none at all.
func pluginVersion(s string) string {
	v, err := version.NewVersion(s)
	if err != nil || v.Core().String() == "0.0.0" {
		return "0.0.1"
	}
	return v.Core().String()
}

// caBundle returns the roots this computer trusts and the endpoints' own
// authorities, as PEM.
func caBundle(dir string, lab *config.Lab) ([]byte, error) {
	var bundle bytes.Buffer
	for _, file := range systemRoots() {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		bundle.Write(bytes.TrimRight(text, "\n"))
		bundle.WriteByte('\n')
		break
	}
	var seen []string
	for _, e := range lab.Proxmox.Endpoints {
		if e.CAFile == "" || slices.Contains(seen, e.CAFile) {
			continue
		}
		seen = append(seen, e.CAFile)
		path := e.CAFile
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fault.New(fault.Invalid, "endpoints."+e.Name+".ca_file",
				"copy /etc/pve/pve-root-ca.pem of a hypervisor to "+e.CAFile, "%w", err)
		}
		if !holdsCertificate(text) {
			return nil, fault.New(fault.Invalid, "endpoints."+e.Name+".ca_file",
				"copy /etc/pve/pve-root-ca.pem of a hypervisor to "+e.CAFile, "%s holds no certificate", e.CAFile)
		}
		bundle.WriteString("# endpoint " + e.Name + "\n")
		bundle.Write(bytes.TrimRight(text, "\n"))
		bundle.WriteByte('\n')
	}
	return bundle.Bytes(), nil
}

// systemRoots lists where a bundle of trusted roots may be, best first.
func systemRoots() []string {
	files := []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Arch
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
		"/etc/ssl/ca-bundle.pem",                            // openSUSE
		"/etc/ssl/cert.pem",                                 // Alpine, macOS
	}
	if own := os.Getenv("SSL_CERT_FILE"); own != "" && !strings.HasSuffix(own, filepath.Join(".k3lab", "ca-bundle.pem")) {
		files = append([]string{own}, files...)
	}
	return files
}

func holdsCertificate(text []byte) bool {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			if _, err := x509.ParseCertificate(block.Bytes); err == nil {
				return true
			}
		}
	}
	return false
}

// writeChanged replaces the file in one move unless it already holds the text.
func writeChanged(path string, text []byte) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, text) {
		return nil
	}
	return renameio.WriteFile(path, text, 0o644)
}
