package pveapi

import "testing"

func TestSmoke(t *testing.T) {
	x := open(t, testOptions(t))
	t.Log(x.get("/version", nil))
	x.newVM("pve1", 100, map[string]string{"net0": "model=virtio,bridge=vmbr0", "ide2": "local-lvm:cloudinit", "sshkeys": "ssh-ed25519%20AAAA"})
	t.Log(x.config("pve1", 100))
	x.must("POST", "/nodes/pve1/qemu/100/status/start", nil)
	t.Log(x.get("/cluster/resources", nil))
	x.refuse(500, "VM 100 is running - destroy failed", "DELETE", "/nodes/pve1/qemu/100", nil)
	x.must("POST", "/nodes/pve1/qemu/100/status/stop", nil)
	x.must("DELETE", "/nodes/pve1/qemu/100/", nil)
}
