package tfprovider

import (
	"context"
	"errors"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"golang.org/x/crypto/ssh"

	"github.com/k3lab/k3lab/internal/sshkey"
)

// sshKey is resource k3lab_ssh_key: the key pair to log in with. Its private
// half is in a file and in the secrets file, never in the state.
//
// Destroying it removes the files and leaves the secret: machines made outside
// this state may know the key, and a lab that is made again logs in as before.
type sshKey struct{}

type sshKeyModel struct {
	PrivateKeyPath  types.String `tfsdk:"private_key_path"`
	SecretsFile     types.String `tfsdk:"secrets_file"`
	ExistingKeyFile types.String `tfsdk:"existing_key_file"`
	UserPublicKeys  types.List   `tfsdk:"user_public_keys"`
	PublicKey       types.String `tfsdk:"public_key"`
	AuthorizedKeys  types.List   `tfsdk:"authorized_keys"`
	Fingerprint     types.String `tfsdk:"fingerprint"`
}

func (*sshKey) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = "k3lab_ssh_key"
}

func (*sshKey) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	keep := []planmodifier.String{stringplanmodifier.UseStateForUnknown()}
	resp.Schema = schema.Schema{
		Description: "The key pair to log in with.",
		Attributes: map[string]schema.Attribute{
			"private_key_path":  schema.StringAttribute{Required: true, Description: "Where the private key is kept, 0600; the public one beside it."},
			"secrets_file":      schema.StringAttribute{Required: true, Description: "The SOPS file that keeps the private key for other computers."},
			"existing_key_file": schema.StringAttribute{Optional: true, Description: "A private key of the user's; then none is made."},
			"user_public_keys":  schema.ListAttribute{Optional: true, ElementType: types.StringType, Description: "The user's own public keys."},
			"public_key":        schema.StringAttribute{Computed: true, PlanModifiers: keep, Description: "As in authorized_keys."},
			"authorized_keys":   schema.ListAttribute{Computed: true, ElementType: types.StringType, Description: "Who may log in: the user's own keys first."},
			"fingerprint":       schema.StringAttribute{Computed: true, PlanModifiers: keep, Description: "SHA-256 fingerprint of the key pair."},
		},
	}
}

// ModifyPlan computes what can be known now, so that a plan shows it and what
// depends on it does not become unknown.
func (*sshKey) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if req.Plan.Raw.IsNull() {
		return // destroy
	}
	var m sshKeyModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() || m.PrivateKeyPath.IsUnknown() || m.ExistingKeyFile.IsUnknown() || m.UserPublicKeys.IsUnknown() {
		return
	}
	var was sshKeyModel
	if !req.State.Raw.IsNull() {
		resp.Diagnostics.Append(req.State.Get(ctx, &was)...)
	}
	// No key pair of ours was there before: the user's own was.
	first := req.State.Raw.IsNull() || was.ExistingKeyFile.ValueString() != ""
	public, err := m.pair().Restore()
	switch {
	case errors.Is(err, sshkey.ErrLost) && first: // it will be made
		m.PublicKey, m.Fingerprint = types.StringUnknown(), types.StringUnknown()
		m.AuthorizedKeys = types.ListUnknown(types.StringType)
		resp.Diagnostics.Append(resp.Plan.Set(ctx, &m)...)
		return
	case err != nil:
		fail(&resp.Diagnostics, err)
		return
	}
	resp.Diagnostics.Append(m.compute(ctx, public)...)
	resp.Diagnostics.Append(resp.Plan.Set(ctx, &m)...)
}

func (*sshKey) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	put(ctx, req.Plan, &resp.State, &resp.Diagnostics)
}

// Update keeps the key pair, in another place where that was changed.
func (*sshKey) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	put(ctx, req.Plan, &resp.State, &resp.Diagnostics)
	var was, is sshKeyModel
	resp.Diagnostics.Append(req.State.Get(ctx, &was)...)
	resp.Diagnostics.Append(req.Plan.Get(ctx, &is)...)
	leftBehind(&resp.Diagnostics, was.PrivateKeyPath.ValueString(), is.PrivateKeyPath.ValueString())
}

func (*sshKey) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var m sshKeyModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	public, err := m.pair().Restore()
	if err != nil {
		fail(&resp.Diagnostics, err)
		return
	}
	resp.Diagnostics.Append(m.compute(ctx, public)...)
	resp.Diagnostics.Append(resp.State.Set(ctx, &m)...)
}

func (*sshKey) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var m sshKeyModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() || m.ExistingKeyFile.ValueString() != "" {
		return // what may lie there we have not made
	}
	file := m.PrivateKeyPath.ValueString()
	remove(&resp.Diagnostics, "k3lab_ssh_key: the key file could not be removed", file, file+".pub")
}

func put(ctx context.Context, plan tfsdk.Plan, state *tfsdk.State, diags *diag.Diagnostics) {
	var m sshKeyModel
	diags.Append(plan.Get(ctx, &m)...)
	if diags.HasError() {
		return
	}
	public, err := m.pair().Create()
	if err != nil {
		fail(diags, err)
		return
	}
	diags.Append(m.compute(ctx, public)...)
	diags.Append(state.Set(ctx, &m)...)
}

func (m *sshKeyModel) pair() sshkey.Pair {
	return sshkey.Pair{File: m.PrivateKeyPath.ValueString(), SecretsFile: m.SecretsFile.ValueString(), Own: m.ExistingKeyFile.ValueString()}
}

func (m *sshKeyModel) compute(ctx context.Context, public ssh.PublicKey) diag.Diagnostics {
	var users []string
	diags := m.UserPublicKeys.ElementsAs(ctx, &users, true)
	keys, err := sshkey.Authorized(users, public)
	if err != nil {
		fail(&diags, err)
		return diags
	}
	list, d := types.ListValueFrom(ctx, types.StringType, keys)
	diags.Append(d...)
	m.PublicKey, m.AuthorizedKeys = types.StringValue(sshkey.Line(public)), list
	m.Fingerprint = types.StringValue(ssh.FingerprintSHA256(public))
	return diags
}

func fail(diags *diag.Diagnostics, err error) {
	diags.AddError("k3lab_ssh_key: the key pair to log in with", err.Error())
}
