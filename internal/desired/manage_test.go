package desired_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/desired"
)

// TestOnlyWhatIsManagedIsDesired holds every part to resources with its own tags.
func TestOnlyWhatIsManagedIsDesired(t *testing.T) {
	tests := map[string]struct {
		manage []config.Concern
		want   []string // tags of the first server's resources, sorted
	}{
		"by default everything":             {nil, []string{"firewall", "ha", "hardening", "k3s", "os", "ssh"}},
		"nothing":                           {[]config.Concern{}, nil},
		"policies are no part of a machine": {[]config.Concern{config.ManagePolicies}, nil},
		"the operating system":              {[]config.Concern{config.ManageOS}, []string{"os"}},
		"logging in":                        {[]config.Concern{config.ManageSSH}, []string{"ssh"}},
		"the firewall":                      {[]config.Concern{config.ManageFirewall}, []string{"firewall"}},
		"the virtual address":               {[]config.Concern{config.ManageHA}, []string{"ha"}},
		"K3s, and its hardening with it":    {[]config.Concern{config.ManageK3s}, []string{"hardening", "k3s"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := lab()
			l.Manage = tt.manage
			state, err := desired.Node(l, l.Machine("server-1"), inputs())
			if err != nil {
				t.Fatal(err)
			}
			var tags []string
			for _, r := range state.Resources {
				tags = append(tags, r.Tags...)
			}
			slices.Sort(tags)
			if d := cmp.Diff(tt.want, slices.Compact(tags)); d != "" {
				t.Errorf("tags (-want +got):\n%s", d)
			}
		})
	}
}
