package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestWrongUsage: what cannot be meant fails, says so in one line and names the
// command that is right.
func TestWrongUsage(t *testing.T) {
	tests := map[string]struct {
		args []string
		want string
	}{
		"a command misspelt":           {[]string{"upp"}, `k3lab: there is no command "k3lab upp" (try: k3lab up)`},
		"a command unlike any":         {[]string{"frobnicate"}, `k3lab: there is no command "k3lab frobnicate" (try: k3lab --help)`},
		"a command below misspelt":     {[]string{"sandbox", "statsu"}, `k3lab: there is no command "k3lab sandbox statsu" (try: k3lab sandbox status)`},
		"a command below there is not": {[]string{"secrets", "forget"}, `k3lab: there is no command "k3lab secrets forget" (try: k3lab secrets --help)`},
		"an unknown flag":              {[]string{"plan", "--dif"}, `k3lab: unknown flag: --dif (try: k3lab plan --help)`},
		"no machine":                   {[]string{"ssh"}, `k3lab: which machine is not said (try: k3lab ssh server-1; k3lab status lists them)`},
		"use without merge": {
			[]string{"kubeconfig", "--use"},
			`k3lab: --use concerns the file that --merge names, and none is named (try: k3lab kubeconfig --merge ~/.kube/config --use)`,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := Run(t.Context(), Streams{In: strings.NewReader(""), Out: &out, Err: &errs}, "test", tc.args)
			if diff := cmp.Diff(tc.want+"\n", errs.String()); diff != "" || code != 1 || out.Len() > 0 {
				t.Errorf("exit code %d, output %q, message (-want +got):\n%s", code, &out, diff)
			}
		})
	}
}
