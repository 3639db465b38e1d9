package pveapi

import (
	"crypto/rand"
	"fmt"
	"net"
	"slices"
)

// netModels are the network cards QEMU offers.
func netModels() []string {
	return []string{
		"e1000", "e1000-82540em", "e1000-82544gc", "e1000-82545em", "e1000e", "i82551", "i82557b", "i82559er",
		"ne2k_isa", "ne2k_pci", "pcnet", "rtl8139", "virtio", "vmxnet3",
	}
}

// netOptions are a network card's other settings.
func netOptions() []string {
	return []string{"bridge", "firewall", "link_down", "mtu", "queues", "rate", "tag", "trunks"}
}

// parseNet reads a netN value in any of its spellings. A card without a MAC
// address gets a new one, even when it had one before: so does Proxmox.
func parseNet(value string) (model string, p props, err error) {
	p, err = parseProps(value, "model")
	if err != nil {
		return "", nil, err
	}
	if m := p["model"]; m != "" {
		model = m
	}
	for _, m := range netModels() {
		if mac, ok := p[m]; ok {
			model, p["macaddr"] = m, mac
			delete(p, m)
		}
	}
	delete(p, "model")
	if !slices.Contains(netModels(), model) {
		return "", nil, fmt.Errorf("invalid format - model: value '%s' does not have a value in the enumeration", model)
	}
	if p["macaddr"] == "" {
		p["macaddr"] = randomMAC()
	}
	mac, err := net.ParseMAC(p["macaddr"])
	if err != nil || len(mac) != 6 {
		return "", nil, fmt.Errorf("invalid format - macaddr: value does not look like a valid unicast MAC address")
	}
	if mac[0]&1 == 1 {
		return "", nil, fmt.Errorf("invalid format - macaddr: value does not look like a valid unicast MAC address")
	}
	for k := range p {
		if k != "macaddr" && !slices.Contains(netOptions(), k) {
			return "", nil, fmt.Errorf("invalid format - %s: property is not defined in schema and the schema does not allow additional properties", k)
		}
	}
	return model, p, nil
}

// printNet writes a netN value as Proxmox does: "virtio=MAC,bridge=…".
func printNet(model string, p props) string {
	rest := props{}
	for k, v := range p {
		if k != "macaddr" {
			rest[k] = v
		}
	}
	out := model + "=" + p["macaddr"]
	if s := rest.print(""); s != "" {
		out += "," + s
	}
	return out
}

// randomMAC is an address out of Proxmox's own range.
func randomMAC() string {
	b := make([]byte, 3)
	_, _ = rand.Read(b) // never fails, says crypto/rand
	return fmt.Sprintf("BC:24:11:%02X:%02X:%02X", b[0], b[1], b[2])
}

// setNet keeps one network card.
func (vm *VM) setNet(key, value string) error {
	model, p, err := parseNet(value)
	if err != nil {
		return badParam(key, "%v", err)
	}
	vm.Config[key] = printNet(model, p)
	return nil
}

// checkBridges fails, when a VM starts, for a bridge its hypervisor lacks.
// (A configuration may name any, as at Proxmox.)
func (h *Hypervisor) checkBridges(spec Spec) error {
	for _, n := range spec.NICs {
		if n.Bridge != "" && len(h.Bridges) > 0 && !slices.Contains(h.Bridges, n.Bridge) {
			return failed("bridge '%s' does not exist", n.Bridge)
		}
	}
	return nil
}

// newMACs gives every network card of a clone its own address.
func (vm *VM) newMACs() error {
	for _, k := range sortedKeys(vm.Config) {
		if !isNet(k) {
			continue
		}
		model, p, err := parseNet(vm.Config[k])
		if err != nil {
			return failed("unable to parse network options for '%s'", k)
		}
		p["macaddr"] = randomMAC()
		vm.Config[k] = printNet(model, p)
	}
	return nil
}
