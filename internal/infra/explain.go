package infra

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"

	"github.com/k3lab/k3lab/internal/fault"
)

// explain turns what Terraform reports into faults a user can act on: each error
// once, named by what the settings call its subject.
func (t *Terraform) explain(command string, diagnostics []tfjson.Diagnostic, err error) error {
	var faults []error
	seen := map[string]bool{}
	for _, d := range diagnostics {
		if d.Severity != tfjson.DiagnosticSeverityError {
			continue
		}
		f := t.explainOne(d)
		if !seen[f.Error()] {
			seen[f.Error()] = true
			faults = append(faults, f)
		}
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	// Commands without machine-readable output say on standard error what failed.
	return t.explainOne(tfjson.Diagnostic{Summary: command, Detail: plainError(err.Error())})
}

// place is where an error happened.
type place struct {
	object   string // for messages
	endpoint string // the Proxmox endpoint, if one is concerned
	setting  string // where the setting of the subject stands
}

// rule explains the errors whose text matches.
type rule struct {
	pattern *regexp.Regexp
	explain func(p place, m []string) error
}

func (t *Terraform) explainOne(d tfjson.Diagnostic) error {
	all := d.Summary + "\n" + d.Detail
	p := t.place(d, all)
	for _, r := range rules() {
		if m := r.pattern.FindStringSubmatch(all); m != nil {
			return r.explain(p, m)
		}
	}
	cause := d.Summary
	if d.Detail != "" {
		cause += ": " + oneLine(d.Detail)
	}
	if d.Range != nil {
		cause += fmt.Sprintf(" (terraform/%s:%d)", d.Range.Filename, d.Range.Start.Line)
	}
	return fault.New(fault.Failed, p.object, "", "%s", cause)
}

func (t *Terraform) place(d tfjson.Diagnostic, all string) place {
	p := place{object: "terraform", setting: "terraform/vars"}
	if d.Address != "" {
		s := t.names.subjectAt(d.Address)
		p.object = s.String()
		if s.machine {
			p.setting = "machines." + s.object + " in terraform/vars/nodes.yaml"
		}
		if module, _, ok := strings.Cut(strings.TrimPrefix(d.Address, "module."), "."); ok {
			p.endpoint = t.names.endpointOf("module." + module)
		}
	}
	for id, name := range t.names.endpoints {
		if strings.Contains(all, `bpg/proxmox"].`+id) || strings.HasSuffix(d.Address, `bpg/proxmox"].`+id) {
			p.endpoint = name
		}
	}
	if p.endpoint == "" && len(t.opts.Lab.Proxmox.Endpoints) == 1 {
		p.endpoint = t.opts.Lab.Proxmox.Endpoints[0].Name
	}
	if d.Address == "" && p.endpoint != "" && strings.Contains(all, "HTTP") {
		p.object = "endpoint " + p.endpoint
	}
	return p
}

// keptVM is a machine k3lab did not make, which the plan would destroy.
func keptVM(p place, m []string) error {
	address, object := "ADDRESS, as terraform state list shows it", p.object
	if m[1] != "" {
		address, object = "'"+m[1]+"'", m[2]
	}
	return fault.New(fault.Invalid, object, "remove it in Proxmox, or have Terraform forget it: terraform -chdir=terraform state rm "+address,
		"k3lab did not make this VM and does not destroy it")
}

func rules() []rule {
	says := func(pattern string, explain func(p place, m []string) error) rule {
		return rule{regexp.MustCompile(`(?is)` + pattern), explain}
	}
	failed := func(kind fault.Kind, hint, cause string) func(place, []string) error {
		return func(p place, m []string) error {
			args := func(s string) string {
				for i := len(m) - 1; i > 0; i-- {
					s = strings.ReplaceAll(s, fmt.Sprintf("$%d", i), m[i])
				}
				return strings.NewReplacer("$endpoint", p.endpoint, "$setting", p.setting).Replace(s)
			}
			return fault.New(kind, p.object, args(hint), "%s", args(cause))
		}
	}
	return []rule{
		// First, because its detail may hold any network error.
		says(`(?:Failed to query available provider packages|Failed to install provider)\s+(.*?)(?:\n\n|$)`, func(_ place, m []string) error {
			return fault.New(fault.Unreachable, "terraform", "check the connection to the registry, or give a mirror: K3LAB_PROVIDER_MIRROR", "%s", oneLine(m[1]))
		}),
		says(`state lock.*?ID:\s+(\S+).*?Operation:\s+OperationType(\S+).*?Who:\s+(\S+).*?Created:\s+(\S+ \S+?)(?:\.\d+)? `, func(_ place, m []string) error {
			return fault.New(fault.Locked, "terraform state",
				"wait for it to end; if it was killed: terraform -chdir=terraform force-unlock "+m[1],
				"locked by %s (terraform %s since %s)", m[3], strings.ToLower(m[2]), m[4])
		}),
		says(`Instance cannot be destroyed(?:.*?Resource (\S+\.adopted\["([^"]+)"\]) has)?`, keptVM),
		says(`saved plan is stale`, failed(fault.Failed, "the same command again", "the state has changed since the plan was made")),
		says(`HTTP 401|401 (?:authentication failure|no such|invalid token|permission denied)|invalid PVE ticket|failed to authenticate`, func(p place, _ []string) error { return wrongToken(p.endpoint) }),
		says(`must provide either user credentials, an API token`, func(p place, _ []string) error { return noToken(p.endpoint) }),
		says(`certificate signed by unknown authority`, func(p place, _ []string) error { return unknownAuthority(p.endpoint) }),
		says(`Permission check failed \(([^)]*)\)`, failed(fault.Invalid, "give the token of endpoint $endpoint that privilege", "the API token lacks a privilege: $1")),
		says(`connection refused|no route to host|i/o timeout|no such host|connection reset by peer|TLS handshake timeout|context deadline exceeded.*HTTP`, failed(fault.Unreachable, "check that endpoint $endpoint is on, then run the same command again", "the Proxmox API stopped answering")),
		says(`hostname lookup '([^']+)' failed|no such cluster node '([^']+)'`, failed(fault.Invalid, "name it as pvesh get /nodes does, in terraform/vars/proxmox.yaml", "endpoint $endpoint has no hypervisor $1$2")),
		says(`storage '([^']+)' (?:does not exist|is not available on node '([^']+)'|does not support (?:content-type|vm images|content type)[^\n]*)`, failed(fault.Invalid, "pvesm status on the hypervisor, then set storage or image_storage in $setting", "storage $1 cannot be used there")),
		says(`bridge '?([A-Za-z0-9._-]+)'? does not exist`, failed(fault.Invalid, "set bridge in terraform/vars/network.yaml", "the hypervisor has no bridge $1")),
		says(`VM \d+ already exists|config file already exists`, failed(fault.Invalid, "choose another vmid in $setting, or remove that VM", "a VM that is not of this lab has its VM ID")),
		says(`no space left|not enough free space|insufficient free space|out of space|data space full`, failed(fault.Failed, "pvesm status on the hypervisor; free some space or set another storage in $setting", "the storage is full")),
		says(`VM is locked \(([^)]+)\)|can't lock file '[^']*/lock-(\d+)\.conf'`, failed(fault.Failed, "wait for that task to end, or qm unlock it in Proxmox", "the VM is busy with another task of Proxmox ($1$2)")),
		says(`Configuration file '[^']*/([^/']+)/qemu-server/(\d+)\.conf' does not exist`, failed(fault.Invalid, "set template_vmid in terraform/vars/proxmox.yaml to a template on $1", "there is no VM $2 on $1")),
		says(`checksum mismatch|checksum verification failed|wrong checksum`, failed(fault.Invalid, "set image.checksum in terraform/vars/proxmox.yaml to what the publisher states", "the downloaded image does not match its checksum")),
		says(`query-url-metadata|error initiating file download|Could not download file '([^']+)'`, failed(fault.Failed, "check image.url in terraform/vars/proxmox.yaml from the hypervisor", "the hypervisor cannot download the image")),
		says(`pool '?([^']+?)'? is not empty`, failed(fault.Invalid, "put pool back in terraform/vars/proxmox.yaml, or take what is in it out in Proxmox", "pool $1 still has members")),
		says(`shrinking disks is not supported|requested size \([^)]*\) is lower than current size \(([^)]*)\)`, failed(fault.Invalid, "raise disk_gib in $setting", "its disk_gib is smaller than the disk of the template")),
		says(`(start failed: [^\n"]+|QEMU exited with code \d+)`, failed(fault.Failed, "look at the VM's task log in Proxmox, then run the same command again", "Proxmox cannot start the VM: $1")),
		says(`Provider configuration not present`, failed(fault.Invalid, "put the endpoint back, disable its machines, run k3lab up, then remove it", "an endpoint was removed that still carries machines")),
	}
}

// oneLine puts a text of several lines on one.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// plainError drops what tfexec puts before the text of a failed command, and
// the frame Terraform draws around it.
func plainError(s string) string {
	s = strings.TrimPrefix(s, "exit status 1\n")
	return strings.TrimSpace(strings.NewReplacer("╷", "", "│", "", "╵", "").Replace(s))
}
