package infra

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	tfjson "github.com/hashicorp/terraform-json"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
)

// TestExplain reads every diagnostic in testdata/diagnostics, one JSON object
// per line; a new case is a new line or file.
func TestExplain(t *testing.T) {
	files, err := filepath.Glob("testdata/diagnostics/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no diagnostics found")
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tf := &Terraform{opts: Options{Lab: planLab()}, names: newNaming(planLab())}
			var got strings.Builder
			for line := range bytes.Lines(data) {
				var d tfjson.Diagnostic
				if err := json.Unmarshal(line, &d); err != nil {
					t.Fatal(err)
				}
				d.Severity = tfjson.DiagnosticSeverityError
				err := tf.explain("terraform apply", []tfjson.Diagnostic{d}, errors.New("exit status 1"))
				fmt.Fprintf(&got, "exit %d: %v\n", fault.KindOf(err), err)
			}
			golden(t, "diagnostics/"+name+".txt", got.String())
		})
	}
}

func TestExplainTextOfACommand(t *testing.T) {
	tf := &Terraform{opts: Options{Lab: planLab()}, names: newNaming(planLab())}
	err := tf.explain("terraform init", nil, errors.New("exit status 1\n\n╷\n│ Error: Unsupported Terraform Core version\n│ \n│ needs 2.0\n╵\n"))
	want := "terraform: terraform init: Error: Unsupported Terraform Core version needs 2.0"
	if err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

type recorder struct{ events []report.Event }

func (r *recorder) Report(e report.Event) { r.events = append(r.events, e) }

func TestStream(t *testing.T) {
	const out = `{"@level":"info","type":"version"}
{"type":"apply_start","hook":{"resource":{"addr":"module.endpoint_home.proxmox_virtual_environment_vm.machine[\"server-1\"]","module":"module.endpoint_home","resource_type":"proxmox_virtual_environment_vm","resource_name":"machine","resource_key":"server-1"},"action":"create"}}
{"type":"apply_start","hook":{"resource":{"addr":"module.endpoint_home.terraform_data.template[\"pve1\"]","module":"module.endpoint_home","resource_type":"terraform_data","resource_name":"template","resource_key":"pve1"},"action":"create"}}
not json
{"type":"apply_progress","hook":{"resource":{"addr":"module.endpoint_home.proxmox_virtual_environment_vm.machine[\"server-1\"]","module":"module.endpoint_home","resource_type":"proxmox_virtual_environment_vm","resource_name":"machine","resource_key":"server-1"},"action":"create","elapsed_seconds":10}}
{"type":"apply_complete","hook":{"resource":{"addr":"module.endpoint_home.proxmox_virtual_environment_vm.machine[\"server-1\"]","module":"module.endpoint_home","resource_type":"proxmox_virtual_environment_vm","resource_name":"machine","resource_key":"server-1"},"action":"create","elapsed_seconds":12}}
{"type":"apply_errored","hook":{"resource":{"addr":"module.endpoint_home.proxmox_virtual_environment_vm.template[\"pve1\"]","module":"module.endpoint_home","resource_type":"proxmox_virtual_environment_vm","resource_name":"template","resource_key":"pve1"},"action":"delete","elapsed_seconds":1}}
{"type":"diagnostic","diagnostic":{"severity":"warning","summary":"a reboot is required","detail":"reboot\nby hand","address":"module.endpoint_home.proxmox_virtual_environment_vm.machine[\"server-1\"]"}}
{"type":"diagnostic","diagnostic":{"severity":"error","summary":"it broke"}}
`
	for _, size := range []int{1, 7, len(out)} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			r := &recorder{}
			s := &stream{names: newNaming(planLab()), report: r}
			for rest := out; rest != ""; {
				n := min(size, len(rest))
				if _, err := s.Write([]byte(rest[:n])); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			var got strings.Builder
			for _, e := range r.events {
				line, err := json.Marshal(e)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&got, "%s\n", line)
			}
			fmt.Fprintf(&got, "diagnostics: %d\n", len(s.diagnostics))
			golden(t, "stream.txt", got.String())
		})
	}
}
