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
		"no app to roll back":          {[]string{"apps", "rollback"}, `k3lab: which app is not said (try: k3lab apps list shows them)`},
		"applying unasked": {
			[]string{"apps", "apply"},
			`k3lab: apply asks before it changes anything, and nobody can be asked here (try: k3lab apps diff, then k3lab apps apply --yes)`,
		},
		"use without merge": {
			[]string{"kubeconfig", "--use"},
			`k3lab: --use concerns the file that --merge names, and none is named (try: k3lab kubeconfig --merge ~/.kube/config --use)`,
		},
		"a person without a role": {
			[]string{"kubeconfig", "--user", "anna"},
			`k3lab: which role the person gets is not said: viewer, operator or admin (try: k3lab kubeconfig --user anna --role viewer)`,
		},
		"watching security": {
			[]string{"status", "--watch", "--security"},
			`k3lab: --watch and --security exclude each other (try: one of them)`,
		},
		"a role without a person": {
			[]string{"kubeconfig", "--role", "viewer"},
			`k3lab: --role and --output concern the person that --user names, and none is named (try: k3lab kubeconfig --user NAME --role viewer)`,
		},
		"a role there is not": {
			[]string{"kubeconfig", "--user", "anna", "--role", "root"},
			`k3lab: root: there is no role of that name (try: --role viewer, operator or admin)`,
		},
		"a name of Kubernetes' own": {
			[]string{"kubeconfig", "--user", "system:admin", "--role", "viewer"},
			`k3lab: system:admin: a person's name is a to z, 0 to 9 and . _ @ - between, at most 63 characters (try: --user anna, or --user anna@example.org)`,
		},
		"a lifetime no cluster signs": {
			[]string{"kubeconfig", "--user", "anna", "--role", "viewer", "--lifetime", "5m"},
			`k3lab: 5m0s: a certificate lives from 10m to 8760h (try: --lifetime 12h)`,
		},
		"issue and withdraw": {
			[]string{"kubeconfig", "--user", "anna", "--revoke", "anna"},
			`k3lab: --user, --revoke, --list and --merge exclude each other (try: one of them)`,
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
