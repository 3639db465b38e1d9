package pve

import (
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// proxmoxer lists the VMs and, to prove that what it sends is understood,
// starts one and looks at an error.
const proxmoxerScript = `
import os, sys, time
from proxmoxer import ProxmoxAPI
from proxmoxer.core import ResourceException
how = dict(token_name="k3lab", token_value=os.environ["TOKEN"]) if os.environ.get("TOKEN") else dict(password=os.environ["PASSWORD"])
p = ProxmoxAPI(os.environ["HOST"], user="root@pam", verify_ssl=os.environ["CA"], **how)
for vm in sorted(p.cluster.resources.get(type="vm"), key=lambda v: v["vmid"]):
    print(vm["vmid"], vm["name"], vm["node"], vm["status"])
upid = p.nodes("pve2").qemu(102).status.start.post()
while p.nodes("pve2").tasks(upid).status.get()["status"] == "running":
    time.sleep(0.05)
print(p.nodes("pve2").tasks(upid).status.get()["exitstatus"], p.nodes("pve2").qemu(102).status.current.get()["status"])
p.nodes("pve2").qemu(102).config.put(description="by proxmoxer")
print(p.nodes("pve2").qemu(102).config.get()["description"])
try:
    p.nodes("pve2").qemu(102).delete()
except ResourceException as e:
    print(e.status_code, e.status_message)
p.nodes("pve2").qemu(102).status.stop.post()
`

func TestProxmoxer(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	if out, err := exec.Command(python, "-c", "import proxmoxer, requests").CombinedOutput(); err != nil {
		t.Skipf("proxmoxer is not installed (apt-get install python3-proxmoxer python3-requests): %s", out)
	}
	for _, how := range []string{"TOKEN=7b5c4a3e-0000-4000-8000-000000000001", "PASSWORD=hunter2"} {
		name, _, _ := strings.Cut(how, "=")
		t.Run(strings.ToLower(name), func(t *testing.T) {
			c := newCluster(t)
			ctx := within(t, time.Minute)
			makeVMs(ctx, t, c)
			u, err := url.Parse(c.url)
			if err != nil {
				t.Fatal(err)
			}
			want := append(listWithGo(ctx, t, c), "OK running", "by proxmoxer", "500 VM 102 is running - destroy failed")
			cmd := exec.CommandContext(ctx, python, "-c", proxmoxerScript)
			cmd.Env = append(os.Environ(), "HOST="+u.Host, "CA="+c.caFile, how)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if d := cmp.Diff(want, strings.Split(strings.TrimSpace(string(out)), "\n")); d != "" {
				t.Errorf("proxmoxer (-want +got):\n%s", d)
			}
		})
	}
}
