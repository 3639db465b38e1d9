package tfprovider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// inventory is resource k3lab_inventory: Ansible's inventory file, with the
// groups server and agent, their parent k3s_cluster, and master and worker as
// names for the same. A changed file is a change in place; a new path leaves the
// old file, with a warning. Destroying the resource removes the file.
type inventory struct{}

type inventoryModel struct {
	Path           types.String                `tfsdk:"path"`
	User           types.String                `tfsdk:"user"`
	PrivateKeyPath types.String                `tfsdk:"private_key_path"`
	KnownHostsPath types.String                `tfsdk:"known_hosts_path"`
	Machines       map[string]inventoryMachine `tfsdk:"machines"`
	ContentSHA256  types.String                `tfsdk:"content_sha256"`
}

type inventoryMachine struct {
	Role   types.String            `tfsdk:"role"`
	IP     types.String            `tfsdk:"ip"`
	Labels map[string]types.String `tfsdk:"labels"`
}

func (*inventory) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = "k3lab_inventory"
}

func (*inventory) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = schema.Schema{
		Description: "Ansible's inventory of the lab.",
		Attributes: map[string]schema.Attribute{
			"path":             schema.StringAttribute{Required: true, Description: "The file."},
			"user":             schema.StringAttribute{Required: true, Description: "The user to log in as."},
			"private_key_path": schema.StringAttribute{Required: true, Description: "The private key to log in with."},
			"known_hosts_path": schema.StringAttribute{Required: true, Description: "The pinned host keys."},
			"machines": schema.MapNestedAttribute{
				Required: true, Description: "The machines by name.",
				NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
					"role":   schema.StringAttribute{Required: true, Description: "server, agent or none."},
					"ip":     schema.StringAttribute{Required: true, Description: "Address."},
					"labels": schema.MapAttribute{Optional: true, ElementType: types.StringType, Description: "Labels of its node."},
				}},
			},
			"content_sha256": schema.StringAttribute{Computed: true, Description: "Digest of the file; differs from the plan when the file was changed."},
		},
	}
}

// ModifyPlan computes the digest the file should have. A file that was changed
// has another one in the state (Read), and so is written anew.
func (*inventory) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if req.Plan.Raw.IsNull() || !req.Config.Raw.IsFullyKnown() {
		return
	}
	var m inventoryModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	if m.check(&resp.Diagnostics); resp.Diagnostics.HasError() {
		return
	}
	m.ContentSHA256 = types.StringValue(digest(m.render()))
	resp.Diagnostics.Append(resp.Plan.Set(ctx, &m)...)
}

func (*inventory) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	writeInventory(ctx, req.Plan, &resp.State, &resp.Diagnostics)
}

func (*inventory) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	writeInventory(ctx, req.Plan, &resp.State, &resp.Diagnostics)
	var was, is types.String
	resp.Diagnostics.Append(req.State.GetAttribute(ctx, path.Root("path"), &was)...)
	resp.Diagnostics.Append(req.Plan.GetAttribute(ctx, path.Root("path"), &is)...)
	leftBehind(&resp.Diagnostics, was.ValueString(), is.ValueString())
}

// leftBehind warns of a file that stays where a resource had it before. It is
// not removed: the old path may be that of the workspace this one was copied from.
func leftBehind(diags *diag.Diagnostics, was, is string) {
	old, err := os.Stat(was)
	if err != nil || filepath.Clean(was) == filepath.Clean(is) {
		return
	}
	if current, err := os.Stat(is); err == nil && !os.SameFile(old, current) {
		diags.AddWarning("k3lab: a file stays at its old place", was+" is no longer used; remove it where nothing else uses it.")
	}
}

func (*inventory) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var m inventoryModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	text, err := os.ReadFile(m.Path.ValueString())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		m.ContentSHA256 = types.StringValue("")
	case err != nil:
		resp.Diagnostics.AddError("k3lab_inventory: the file cannot be read", err.Error())
		return
	default:
		m.ContentSHA256 = types.StringValue(digest(text))
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, &m)...)
}

func (*inventory) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var m inventoryModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	remove(&resp.Diagnostics, "k3lab_inventory: the file could not be removed", m.Path.ValueString())
}

// remove removes files; one that is not there is as good as removed.
func remove(diags *diag.Diagnostics, summary string, files ...string) {
	for _, file := range files {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			diags.AddError(summary, err.Error())
		}
	}
}

func writeInventory(ctx context.Context, plan tfsdk.Plan, state *tfsdk.State, diags *diag.Diagnostics) {
	var m inventoryModel
	diags.Append(plan.Get(ctx, &m)...)
	if diags.HasError() {
		return
	}
	if m.check(diags); diags.HasError() {
		return
	}
	text, file := m.render(), m.Path.ValueString()
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = renameio.WriteFile(file, text, 0o644)
	}
	if err != nil {
		diags.AddError("k3lab_inventory: the file cannot be written", err.Error())
		return
	}
	m.ContentSHA256 = types.StringValue(digest(text))
	diags.Append(state.Set(ctx, &m)...)
}

func digest(text []byte) string {
	h := sha256.Sum256(text)
	return hex.EncodeToString(h[:])
}
