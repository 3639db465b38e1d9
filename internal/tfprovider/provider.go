// Package tfprovider is the Terraform provider k3lab, served by the k3lab binary
// itself: the key pair to log in with, and the Ansible inventory.
//
// Both could be had from providers of others; then the private key would be in
// the state, and none of it would work where no registry answers.
package tfprovider

import (
	"context"
	"fmt"
	"os"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-framework/resource"
)

// Address is the provider's source address. The host name is ours alone, so no
// registry is asked for it.
const Address = "k3lab.internal/k3lab/k3lab"

// IsPlugin reports whether terraform or tofu has started this process to serve
// the provider (go-plugin's handshake sets the variable).
func IsPlugin() bool { return os.Getenv("TF_PLUGIN_MAGIC_COOKIE") != "" }

// Serve serves the provider until terraform ends the process.
func Serve(ctx context.Context, version string) error {
	err := providerserver.Serve(ctx, New(version), providerserver.ServeOpts{Address: Address, ProtocolVersion: 6})
	if err != nil {
		return fmt.Errorf("terraform provider: %w", err)
	}
	return nil
}

// New returns the provider's constructor.
func New(version string) func() provider.Provider {
	return func() provider.Provider { return &k3lab{version} }
}

type k3lab struct{ version string }

func (p *k3lab) Metadata(_ context.Context, _ provider.MetadataRequest, resp *provider.MetadataResponse) {
	resp.TypeName, resp.Version = "k3lab", p.version
}

func (*k3lab) Schema(_ context.Context, _ provider.SchemaRequest, resp *provider.SchemaResponse) {
	resp.Schema = schema.Schema{Description: "What a k3lab workspace needs beside its machines."}
}

func (*k3lab) Configure(context.Context, provider.ConfigureRequest, *provider.ConfigureResponse) {}

func (*k3lab) DataSources(context.Context) []func() datasource.DataSource { return nil }

func (*k3lab) Resources(context.Context) []func() resource.Resource {
	return []func() resource.Resource{
		func() resource.Resource { return &sshKey{} },
		func() resource.Resource { return &inventory{} },
	}
}
