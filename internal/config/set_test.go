package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/fault"
)

func TestSet(t *testing.T) {
	const byHand = "ansible/group_vars/all.yaml: k3s.version cannot be changed without changing more (try: write k3s.version: NEW by hand)"
	tests := map[string]struct{ src, want, wantErr string }{
		"plain": {
			"lab_name: x\n\nk3s: # of all\n  # renovate: x\n  version: v1   # the one line\n  cni: flannel\n",
			"lab_name: x\n\nk3s: # of all\n  # renovate: x\n  version: NEW   # the one line\n  cni: flannel\n", "",
		},
		"quoted":                {"k3s: {version: \"v1\", cni: none}\n", "k3s: {version: NEW, cni: none}\n", ""},
		"the same":              {"k3s:\n  version: 'NEW'\n", "k3s:\n  version: 'NEW'\n", ""},
		"Windows' line ends":    {"k3s:\r\n  version: v1\r\nos: {}\r\n", "k3s:\r\n  version: NEW\r\nos: {}\r\n", ""},
		"the same text twice":   {"lab_name: v1\nk3s:\n  version: v1\n", "lab_name: v1\nk3s:\n  version: NEW\n", ""},
		"an anchor others use":  {"k3s:\n  version: &v v1\nlab_name: *v\n", "", byHand},
		"an alias":              {"lab_name: &v v1\nk3s:\n  version: *v\n", "", byHand},
		"not there":             {"k3s:\n  cni: none\n", "", byHand},
		"a map":                 {"k3s:\n  version: {a: b}\n", "", byHand},
		"over lines":            {"k3s:\n  version: |\n    v1\n", "", byHand},
		"no map where it needs": {"k3s: v1\n", "", byHand},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Set(platformFile, []byte(tt.src), "k3s.version", "NEW")
			if tt.wantErr != "" {
				if err == nil || err.Error() != tt.wantErr || fault.KindOf(err) != fault.Failed {
					t.Errorf("got %q, %v\nwant %s", got, err, tt.wantErr)
				}
				return
			}
			if d := cmp.Diff(tt.want, string(got)); d != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, d)
			}
		})
	}
	if _, err := Set(platformFile, []byte("a: [\n"), "k3s.version", "NEW"); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "all.yaml") {
		t.Errorf("no YAML: %v", err)
	}
}
