// Package pveapi simulates the HTTPS API of a Proxmox VE cluster closely
// enough that unmodified clients (the bpg/proxmox Terraform provider,
// go-proxmox, proxmoxer) work against it.
//
// What a VM is made of lives in one State, written to the state directory at
// every mutation, so the simulator may be stopped and started at any time.
// Running a VM is somebody else's work: Power and Disks, declared here, are
// implemented by real machines or by NoMachines.
//
// The vocabulary inside this package is Proxmox's own where it stands on the
// wire (node, upid, volid); "hypervisor" is used where Go code speaks.
package pveapi

import "context"

// Spec is what a machine needs to know of its VM.
type Spec struct {
	VMID       int
	Name       string
	Hypervisor string
	Cores      int
	MemoryMiB  int
	Disks      []Disk // boot disk first
	NICs       []NIC
	CloudInit  CloudInit
}

// Disk is one virtual disk of a VM; Key is its place in the VM's
// configuration (scsi0), Volume its volume identifier.
type Disk struct {
	Key       string
	Volume    string
	Serial    string
	SizeBytes int64
	Boot      bool
}

// NIC is one network interface of a VM; VLAN 0 means untagged.
type NIC struct {
	Key    string
	MAC    string
	Bridge string
	VLAN   int
}

// CloudInit is what the VM's native cloud-init fields ask for.
type CloudInit struct {
	User         string
	SSHKeys      []string
	Addresses    []string // "10.0.0.5/24", one per NIC; "" or "dhcp" where none is fixed
	Gateway      string
	DNSServers   []string
	SearchDomain string
}

// Power runs machines.
type Power interface {
	// Start boots the machine and returns when its init runs; starting a
	// running machine does nothing.
	Start(ctx context.Context, s Spec) error
	// Stop is hard, as pulling the plug; stopping a stopped machine does nothing.
	Stop(ctx context.Context, vmid int) error
	// Shutdown is orderly and gives up at ctx's deadline.
	Shutdown(ctx context.Context, vmid int) error
	// Running reports whether the machine runs now.
	Running(vmid int) bool
}

// Disks keeps what machines store between boots. A VM that was never started
// has nothing stored; every method accepts that.
type Disks interface {
	Delete(ctx context.Context, vmid int) error
	Snapshot(ctx context.Context, vmid int, name string) error
	Rollback(ctx context.Context, vmid int, name string) error
	DeleteSnapshot(ctx context.Context, vmid int, name string) error
	// Copy makes a full clone of a VM that has been started before.
	Copy(ctx context.Context, from, to int) error
}
