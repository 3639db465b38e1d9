package pve

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHardware(t *testing.T) {
	vm := VM{ID: 301, Name: "alpha", Node: "pve1", Running: true}
	tests := map[string]struct {
		config map[string]any
		want   Hardware
	}{
		"as people make them": {
			map[string]any{
				"cores": 4.0, "sockets": 2.0, "memory": "8192", "balloon": 2048.0, "onboot": 1.0, "agent": "enabled=1,fstrim_cloned_disks=1",
				"ide2": "local:iso/debian.iso,media=cdrom", "scsi0": "local-zfs:vm-301-disk-0,iothread=1,size=64G", "scsi1": "tank:vm-301-disk-1,size=1T",
				"net0": "virtio=bc:24:11:00:00:01,bridge=vmbr1,firewall=1,tag=20", "net1": "e1000=BC:24:11:00:00:02,bridge=vmbr0",
			},
			Hardware{
				VM: vm, Cores: 4, MemoryMiB: 8192, BalloonMiB: 2048, OnBoot: true, Agent: true, Bridge: "vmbr1", Storage: "local-zfs",
				MACs: []string{"BC:24:11:00:00:01", "BC:24:11:00:00:02"},
			},
		},
		"with what Proxmox takes by default": {map[string]any{"agent": "0"}, Hardware{VM: vm, Cores: 1, MemoryMiB: 512}},
		"an agent in the short form":         {map[string]any{"agent": "1"}, Hardware{VM: vm, Cores: 1, MemoryMiB: 512, Agent: true}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, hardware(vm, tt.config)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
