package config

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLayouts loads whole workspaces as people have them. want.txt is what Load
// says; lab.json is what it made of the settings.
func TestLayouts(t *testing.T) {
	verdicts := map[string]string{
		"a": "valid", "b": "valid", "b-shared": "invalid", "b-preferred": "warning", "c": "warning", "d": "warning", "e": "valid",
	}
	dirs, err := filepath.Glob("testdata/layouts/*")
	if err != nil || len(dirs) != len(verdicts) {
		t.Fatal("layouts and verdicts differ", dirs, err)
	}
	for _, dir := range dirs {
		name := filepath.Base(dir)
		t.Run(name, func(t *testing.T) {
			lab, problems := Load(dir)
			golden(t, filepath.Join(dir, "want.txt"), text(problems))
			verdict(t, verdicts[name], problems)
			lab.Sources = nil
			out, err := json.MarshalIndent(lab, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join(dir, "lab.json"), string(out)+"\n")
		})
	}
}

// TestPosition: later checks point at settings, inherited ones included.
func TestPosition(t *testing.T) {
	lab, _ := Load("testdata/layouts/d")
	tests := map[string]Position{
		"nodes.machines.agent-1.memory_mib":            {nodesFile, 15, 17},
		"nodes.machines.agent-1.balloon_mib":           {nodesFile, 5, 16}, // from the defaults
		"nodes.machines.agent-1.extra_disks[0].serial": {nodesFile, 17, 33},
		"nodes.machines.agent-1.disk_gib":              {nodesFile, 10, 3}, // not written: the machine
		"nodes.machines.agent-9.ip":                    {nodesFile, 6, 1},  // no such machine: all of them
		"network.dns_servers[0]":                       {networkFile, 3, 15},
		"network.vrrp_id":                              {networkFile, 0, 0}, // not written: the file
		"proxmox.endpoints.beta.url":                   {proxmoxFile, 6, 10},
		"all.k3s.version":                              {platformFile, 7, 12},
		"nonsense":                                     {},
	}
	for key, want := range tests {
		if diff := cmp.Diff(want, lab.Position(key)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
	if got := (&Lab{}).Position("network.vip"); got != (Position{}) {
		t.Errorf("a Lab that was not loaded knows %s", got)
	}
}

func TestRange(t *testing.T) {
	tests := map[string]struct {
		text string
		want string // the range's text form, or the error
	}{
		"two ends":         {"192.168.1.10-192.168.1.20", "192.168.1.10-192.168.1.20"},
		"spaces":           {"192.168.1.10 - 192.168.1.20", "192.168.1.10-192.168.1.20"},
		"network":          {"192.168.1.128/26", "192.168.1.128-192.168.1.191"},
		"host bits":        {"192.168.1.130/26", "192.168.1.128-192.168.1.191"},
		"one address":      {"192.168.1.7", "192.168.1.7"},
		"all of IPv4":      {"0.0.0.0/0", "0.0.0.0-255.255.255.255"},
		"IPv6":             {"fd00::/126", "fd00::-fd00::3"},
		"wrong order":      {"192.168.1.20-192.168.1.10", `"192.168.1.20-192.168.1.10" ends before it begins`},
		"mixed families":   {"192.168.1.20-fd00::1", `"192.168.1.20-fd00::1" has ends that do not belong together`},
		"short second end": {"192.168.1.20-40", `"40" is not an address`},
		"nothing":          {"", `"" is not a range of addresses`},
		"zone":             {"fe80::1%eth0", `"fe80::1%eth0" is not a range of addresses`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, err := ParseRange(tt.text)
			if err != nil {
				if err.Error() != tt.want {
					t.Errorf("got error %q, want %q", err, tt.want)
				}
				return
			}
			if r.String() != tt.want {
				t.Errorf("got %s, want %s", r, tt.want)
			}
			var back Range
			if err := back.UnmarshalText([]byte(r.String())); err != nil || back != r {
				t.Errorf("read back as %v, %v", back, err)
			}
		})
	}
	r := Range{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.0.0.9")}
	for text, want := range map[string]bool{"10.0.0.4": false, "10.0.0.5": true, "10.0.0.9": true, "10.0.0.10": false, "::a00:5": false} {
		if got := r.Contains(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s contains %s: %v", r, text, got)
		}
	}
}
