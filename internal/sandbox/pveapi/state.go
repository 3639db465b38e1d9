package pveapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// State is all the simulator knows, as it is written to state.json.
type State struct {
	Version  int                  `json:"version"`
	Created  int64                `json:"created"` // Unix seconds; counts as when the hypervisors booted
	Seq      int                  `json:"seq"`     // counts tasks, for unique UPIDs
	VMs      map[int]*VM          `json:"vms"`
	Pools    map[string]*Pool     `json:"pools"`
	Volumes  map[string]*Volume   `json:"volumes"` // key: volumeKey
	Tasks    []*Task              `json:"tasks"`   // oldest first
	Firewall *Firewall            `json:"firewall"`
	NodeFW   map[string]*Firewall `json:"node_firewall"`
	// VMFW stands apart from the VMs, as in Proxmox: its calls neither ask
	// whether the VM exists nor on which node it is.
	VMFW map[int]*Firewall `json:"vm_firewall"`
	// TicketKey signs login tickets, so they outlive a restart.
	TicketKey []byte `json:"ticket_key"`
}

// stateVersion is the layout of state.json this code reads and writes.
const stateVersion = 1

// VM is one virtual machine.
type VM struct {
	VMID   int               `json:"vmid"`
	Node   string            `json:"node"`
	Pool   string            `json:"pool,omitempty"`
	Lock   string            `json:"lock,omitempty"`
	Config map[string]string `json:"config"` // as a qemu-server .conf file holds it
	// Running is the last known power state; Power.Running decides.
	Running bool `json:"running,omitempty"`
	// Started says that the machine has run at least once, so has something stored.
	Started   bool  `json:"started,omitempty"`
	StartedAt int64 `json:"started_at,omitempty"` // Unix seconds
	// Booted is the configuration the running machine was booted with.
	Booted    map[string]string    `json:"booted,omitempty"`
	Snapshots map[string]*Snapshot `json:"snapshots,omitempty"`
	Parent    string               `json:"parent,omitempty"` // the snapshot the current state descends from
}

// Snapshot is a VM snapshot: the configuration at its time; the disks' content
// is kept by Disks under the same name.
type Snapshot struct {
	Config      map[string]string `json:"config"`
	Description string            `json:"description,omitempty"`
	Time        int64             `json:"time"`
	Parent      string            `json:"parent,omitempty"`
	Started     bool              `json:"started,omitempty"`
}

// Pool groups VMs; membership stands with the VM.
type Pool struct {
	Comment  string   `json:"comment,omitempty"`
	Storages []string `json:"storages,omitempty"`
}

// Volume is something a storage holds: a disk image, a download, a backup.
type Volume struct {
	Node    string `json:"node"` // "" on a shared storage
	Volid   string `json:"volid"`
	Content string `json:"content"`
	Format  string `json:"format"`
	Size    int64  `json:"size"` // bytes
	VMID    int    `json:"vmid,omitempty"`
	Parent  string `json:"parent,omitempty"` // base image of a linked clone
	CTime   int64  `json:"ctime"`
	Notes   string `json:"notes,omitempty"`
	// Protected volumes are not removed.
	Protected bool `json:"protected,omitempty"`
}

// Task is a worker's record. Exit is empty while it runs.
type Task struct {
	UPID  string   `json:"upid"`
	Node  string   `json:"node"`
	PID   int      `json:"pid"`
	Type  string   `json:"type"`
	ID    string   `json:"id"`
	User  string   `json:"user"`
	Start int64    `json:"start"`
	End   int64    `json:"end,omitempty"`
	Exit  string   `json:"exit,omitempty"`
	Log   []string `json:"log,omitempty"`
}

func newState(ticketKey []byte) *State {
	return &State{
		Version: stateVersion, VMs: map[int]*VM{}, Pools: map[string]*Pool{}, Volumes: map[string]*Volume{},
		Firewall: newFirewall(), NodeFW: map[string]*Firewall{}, VMFW: map[int]*Firewall{}, TicketKey: ticketKey,
	}
}

// parseState reads what an earlier process wrote.
func parseState(b []byte) (*State, error) {
	st := newState(nil)
	if err := json.Unmarshal(b, st); err != nil {
		return nil, err
	}
	if st.Version != stateVersion {
		return nil, fmt.Errorf("layout %d is not %d", st.Version, stateVersion)
	}
	for _, vm := range st.VMs {
		if vm.Config == nil {
			vm.Config = map[string]string{}
		}
		if vm.Snapshots == nil {
			vm.Snapshots = map[string]*Snapshot{}
		}
	}
	return st, nil
}

func newVM(id int, node string) *VM {
	return &VM{VMID: id, Node: node, Config: map[string]string{}, Snapshots: map[string]*Snapshot{}}
}

// vmids returns the identifiers of all VMs in ascending order.
func (st *State) vmids() []int { return slices.Sorted(maps.Keys(st.VMs)) }

// name is what the VM is called; Proxmox has a default.
func (vm *VM) name() string {
	if n := vm.Config["name"]; n != "" {
		return n
	}
	return fmt.Sprintf("VM %d", vm.VMID)
}

func (vm *VM) template() bool { return truth(vm.Config["template"]) }

// task finds a task by its UPID.
func (st *State) task(upid string) *Task {
	for _, t := range slices.Backward(st.Tasks) {
		if t.UPID == upid {
			return t
		}
	}
	return nil
}
