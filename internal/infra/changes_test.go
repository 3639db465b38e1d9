package infra

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	tfjson "github.com/hashicorp/terraform-json"

	"github.com/k3lab/k3lab/internal/config"
)

// planLab is the lab the plans in testdata/plans belong to.
func planLab() *config.Lab {
	lab := endpoints("home", "garage")
	lab.Proxmox.Hypervisors = map[string]config.Hypervisor{
		"pve1": {Name: "pve1", Endpoint: "home"},
		"pve2": {Name: "pve2", Endpoint: "garage"},
	}
	lab.Machines = []*config.Machine{
		{Name: "server-1", Enabled: true, Role: config.RoleServer, Hypervisor: "pve1", VMID: 201},
		{Name: "agent-1", Enabled: true, Role: config.RoleAgent, Hypervisor: "pve2", VMID: 203},
		{Name: "off", Enabled: false, Role: config.RoleAgent, Hypervisor: "pve2", VMID: 204},
		{Name: "metal", Enabled: true, Role: config.RoleAgent, Hypervisor: config.HypervisorNone},
	}
	return lab
}

// TestPlans reads every plan in testdata/plans; a new case is a new file.
func TestPlans(t *testing.T) {
	files, err := filepath.Glob("testdata/plans/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no plans found")
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var plan tfjson.Plan
			if err := json.Unmarshal(data, &plan); err != nil {
				t.Fatal(err)
			}
			n := newNaming(planLab())
			var got strings.Builder
			for _, c := range n.changes(&plan) {
				line, err := json.MarshalIndent(c, "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintln(&got, strings.NewReplacer(`\u003e`, ">", `\u003c`, "<").Replace(string(line)))
			}
			if err := n.guard(&plan); err != nil {
				fmt.Fprintf(&got, "refused:\n%v\n", err)
			}
			golden(t, "plans/"+name+".txt", got.String())
		})
	}
}
