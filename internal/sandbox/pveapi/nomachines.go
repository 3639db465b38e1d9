package pveapi

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// machineless stands in for machines where there are none: it remembers what
// runs and which disks and snapshots exist, and is strict about both.
type machineless struct {
	mu      sync.Mutex
	running map[int]Spec
	stored  map[int]map[string]bool // snapshots of each machine that has disks
}

// Machineless implements Power and Disks without any machine.
type Machineless interface {
	Power
	Disks
}

// NoMachines returns an implementation of Power and Disks that only keeps
// book. What ran when the simulator was last closed is taken as running again.
func NoMachines() Machineless {
	return &machineless{running: map[int]Spec{}, stored: map[int]map[string]bool{}}
}

// adopter is a Power whose machines live in this process, hence must be told
// at a restart what ran before.
type adopter interface {
	adopt(s Spec, running bool, snapshots []string)
}

func (m *machineless) adopt(s Spec, running bool, snapshots []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stored[s.VMID] = map[string]bool{}
	for _, n := range snapshots {
		m.stored[s.VMID][n] = true
	}
	if running {
		m.running[s.VMID] = s
	}
}

func (m *machineless) Start(ctx context.Context, s Spec) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stored[s.VMID] == nil {
		m.stored[s.VMID] = map[string]bool{}
	}
	if _, ok := m.running[s.VMID]; !ok {
		m.running[s.VMID] = s
	}
	return ctx.Err()
}

func (m *machineless) Stop(ctx context.Context, vmid int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.running, vmid)
	return ctx.Err()
}

func (m *machineless) Shutdown(ctx context.Context, vmid int) error { return m.Stop(ctx, vmid) }

func (m *machineless) Running(vmid int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.running[vmid]
	return ok
}

func (m *machineless) Delete(_ context.Context, vmid int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.running[vmid]; ok {
		return fmt.Errorf("machine %d: disks of a running machine are not deleted", vmid)
	}
	delete(m.stored, vmid)
	return nil
}

func (m *machineless) Snapshot(_ context.Context, vmid int, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stored[vmid] == nil {
		m.stored[vmid] = map[string]bool{}
	}
	if m.stored[vmid][name] {
		return fmt.Errorf("machine %d: snapshot %s exists", vmid, name)
	}
	m.stored[vmid][name] = true
	return nil
}

func (m *machineless) Rollback(_ context.Context, vmid int, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.running[vmid]; ok {
		return fmt.Errorf("machine %d: disks of a running machine are not rolled back", vmid)
	}
	if !m.stored[vmid][name] {
		return fmt.Errorf("machine %d: there is no snapshot %s", vmid, name)
	}
	return nil
}

func (m *machineless) DeleteSnapshot(_ context.Context, vmid int, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.stored[vmid][name] {
		return fmt.Errorf("machine %d: there is no snapshot %s", vmid, name)
	}
	delete(m.stored[vmid], name)
	return nil
}

func (m *machineless) Copy(_ context.Context, from, to int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stored[from] == nil {
		return errors.New("a machine that never ran has nothing to copy")
	}
	m.stored[to] = map[string]bool{}
	return nil
}
