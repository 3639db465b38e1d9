package pve

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Hardware is a virtual machine with what it consists of.
type Hardware struct {
	VM
	Cores      int // of each socket
	MemoryMiB  int
	BalloonMiB int      // 0: no ballooning
	OnBoot     bool     // it starts with its hypervisor
	Agent      bool     // it is to have a guest agent
	MACs       []string // of its network cards, upper case, in their order
	Bridge     string   // of the first card
	Storage    string   // of its first disk
}

// Hardware lists all virtual machines the token may see, with their hardware.
// Templates are left out.
func (c *Client) Hardware(ctx context.Context) ([]Hardware, error) {
	vms, err := c.VMs(ctx)
	if err != nil {
		return nil, err
	}
	var out []Hardware
	for _, vm := range vms {
		var config map[string]any
		if err := c.api.Get(ctx, fmt.Sprintf("/nodes/%s/qemu/%d/config", vm.Node, vm.ID), &config); err != nil {
			return nil, c.failed(err)
		}
		if number(config["template"]) != 1 {
			out = append(out, hardware(vm, config))
		}
	}
	return out, nil
}

// AgentAnswers reports whether a VM's guest agent does.
func (c *Client) AgentAnswers(ctx context.Context, vm VM) bool {
	return c.api.Post(ctx, fmt.Sprintf("/nodes/%s/qemu/%d/agent/ping", vm.Node, vm.ID), nil, nil) == nil
}

var (
	card = regexp.MustCompile(`^net[0-9]+$`)
	disk = regexp.MustCompile(`^(scsi|virtio|sata|ide)[0-9]+$`)
	mac  = regexp.MustCompile(`(?i)=((?:[0-9a-f]{2}:){5}[0-9a-f]{2})(?:,|$)`)
)

// hardware reads a VM's configuration. What is not set there has Proxmox's
// defaults: one core, 512 MiB.
func hardware(vm VM, config map[string]any) Hardware {
	h := Hardware{VM: vm, Cores: 1, MemoryMiB: 512}
	if n := number(config["cores"]); n > 0 {
		h.Cores = n
	}
	if n := number(config["memory"]); n > 0 {
		h.MemoryMiB = n
	}
	h.BalloonMiB, h.OnBoot = number(config["balloon"]), number(config["onboot"]) == 1
	agent := fmt.Sprint(config["agent"]) // 1, or enabled=1, with options
	h.Agent = strings.HasPrefix(agent, "1") || property(agent, "enabled") == "1"
	var keys []string
	for key := range config {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		text := fmt.Sprint(config[key])
		switch {
		case card.MatchString(key):
			if m := mac.FindStringSubmatch(text); m != nil {
				h.MACs = append(h.MACs, strings.ToUpper(m[1]))
			}
			if h.Bridge == "" {
				h.Bridge = property(text, "bridge")
			}
		case disk.MatchString(key) && property(text, "media") != "cdrom" && h.Storage == "":
			h.Storage, _, _ = strings.Cut(text, ":")
		}
	}
	return h
}

// number is a value that is sent as a number or as text; 0 where it is neither.
func number(v any) int {
	text := strings.TrimPrefix(fmt.Sprint(v), "current=")
	text, _, _ = strings.Cut(text, ",")
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0
	}
	return int(f)
}

// property is one of the options that Proxmox writes as key=value, with commas.
func property(text, name string) string {
	for _, part := range strings.Split(text, ",") {
		if value, ok := strings.CutPrefix(part, name+"="); ok {
			return value
		}
	}
	return ""
}
