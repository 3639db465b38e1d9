package pve

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/luthermonson/go-proxmox"
)

// moduleDir is the module for one Proxmox endpoint that workspaces are written with.
const moduleDir = "../../../internal/workspace/templates/terraform/modules/endpoint"

func newWorkspace(t *testing.T, c *cluster) *terraform {
	t.Helper()
	if _, err := os.Stat(moduleDir); err != nil {
		t.Skipf("the workspace's Terraform module is not there: %v", err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/workspace")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "modules/endpoint"), os.DirFS(moduleDir)); err != nil {
		t.Fatal(err)
	}
	return newTerraform(t, c, dir)
}

func workspaceMachine(name string) string { return `module.home.` + machineAddress(name) }

// TestWorkspaceModule: no matter what happens outside a machine's own
// settings, no plan makes it anew or removes it.
func TestWorkspaceModule(t *testing.T) {
	do := func(t *testing.T, task func(context.Context) (*proxmox.Task, error)) {
		ctx := within(t, time.Minute)
		started, err := task(ctx)
		if err != nil {
			t.Fatal(err)
		}
		waitTask(ctx, t, started)
	}
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, c *cluster)
		vars   []string
		want   []string // the plan
	}{
		{name: "nothing", change: func(*testing.T, *cluster) {}, want: []string{}},
		{
			name:   "disk grows",
			change: func(*testing.T, *cluster) {},
			vars:   []string{"-var=disk_gib=40"},
			want:   []string{"update " + workspaceMachine("server-1")},
		},
		{
			name:   "size of the machine changes",
			change: func(*testing.T, *cluster) {},
			vars:   []string{"-var=cores=4", "-var=memory_mib=8192"},
			want:   []string{"update " + workspaceMachine("server-1")},
		},
		{
			name: "image gone from the storage",
			change: func(t *testing.T, c *cluster) {
				c.remove(t, "/nodes/pve1/storage/local/content/local:import%2Fdebian-13-00112233.qcow2")
			},
			want: []string{`create module.home.proxmox_virtual_environment_download_file.image["pve1"]`},
		},
		{
			name: "template gone",
			change: func(t *testing.T, c *cluster) {
				do(t, func(ctx context.Context) (*proxmox.Task, error) { return c.vm(ctx, t, "pve1", 9001).Delete(ctx, nil) })
			},
			want: []string{`create module.home.proxmox_virtual_environment_vm.template["pve1"]`},
		},
		{
			name:   "image renewed, so templates made anew",
			change: func(*testing.T, *cluster) {},
			vars:   []string{"-var=checksum=44556677"},
			want: []string{
				`delete+create module.home.proxmox_virtual_environment_download_file.image["pve1"]`,
				`delete+create module.home.proxmox_virtual_environment_download_file.image["pve2"]`,
				`delete+create module.home.proxmox_virtual_environment_vm.template["pve1"]`,
				`delete+create module.home.proxmox_virtual_environment_vm.template["pve2"]`,
				`update module.home.terraform_data.template["pve1"]`,
				`update module.home.terraform_data.template["pve2"]`,
			},
		},
		{
			name: "machine moved to another hypervisor",
			change: func(t *testing.T, c *cluster) {
				do(t, func(ctx context.Context) (*proxmox.Task, error) {
					return c.vm(ctx, t, "pve1", 201).Migrate(ctx, &proxmox.VirtualMachineMigrateOptions{Target: "pve3", Online: true, WithLocalDisks: true})
				})
			},
			want: []string{"update " + workspaceMachine("server-1")},
		},
		{
			name: "machine powered off",
			change: func(t *testing.T, c *cluster) {
				do(t, func(ctx context.Context) (*proxmox.Task, error) { return c.vm(ctx, t, "pve2", 202).Stop(ctx) })
			},
			want: []string{"update " + workspaceMachine("agent-1")},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			tf := newWorkspace(t, c)
			tf.apply()
			tf.noChanges()
			tc.change(t, c)
			tf.wantPlan(tc.want, tc.vars...)
			tf.apply(tc.vars...)
			tf.noChanges(tc.vars...)
		})
	}
}
