package desired_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
	"github.com/k3lab/k3lab/internal/desired"
)

// TestResetUndoesWhatK3sNeeds: all that a node's state puts on a machine for K3s,
// its address and the firewall is taken off again, and nothing else.
func TestResetUndoesWhatK3sNeeds(t *testing.T) {
	taken := []string{desired.TagK3s, desired.TagHA, desired.TagFirewall, desired.TagHardening}
	for _, vip := range []config.VIPProvider{config.VIPKeepalived, config.VIPKubeVIP} {
		l := lab()
		l.Network.VIPProvider = vip
		for _, m := range l.Nodes() {
			in := inputs()
			in.JoinURL = "https://192.0.2.11:6443"
			state, err := desired.Node(l, m, in)
			if err != nil {
				t.Fatal(err)
			}
			reset := desired.Reset(l, m)
			for _, r := range state.Resources {
				want := slices.ContainsFunc(r.Tags, func(tag string) bool { return slices.Contains(taken, tag) })
				if r.Sysctl != nil || r.Module != nil || r.Package != nil || r.ID() == "directory /etc/keepalived" {
					want = false // of the machine
				}
				if r.Absent != nil || r.Unless != nil && r.Unless.Unmarked != nil {
					continue // not put there either
				}
				if got := undone(reset, r); got != want {
					t.Errorf("%s, %s: %s is taken off: %v, want %v", vip, m.Name, r.ID(), got, want)
				}
			}
		}
	}
}

// undone reports whether the state takes away what the resource has put there.
func undone(s converger.State, r converger.Resource) bool {
	var path string
	switch {
	case r.File != nil:
		path = r.File.Path
	case r.Directory != nil:
		path = r.Directory.Path
	case r.Link != nil:
		path = r.Link.Path
	case r.Binary != nil:
		path = r.Binary.Path
	case r.Leftovers != nil:
		path = r.Leftovers.Dir
	}
	return slices.ContainsFunc(s.Resources, func(o converger.Resource) bool {
		switch {
		case o.Absent != nil:
			return path != "" && (path == o.Absent.Path || strings.HasPrefix(path, o.Absent.Path+"/"))
		case o.Unit != nil && r.Unit != nil:
			return o.Unit.Name == r.Unit.Name && !o.Unit.Enabled && !o.Unit.Running
		case o.Nftables != nil && r.Nftables != nil:
			return o.Nftables.Table == r.Nftables.Table && o.Nftables.Ruleset == ""
		}
		return false
	})
}
