package fleet_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/fleet"
	"github.com/k3lab/k3lab/internal/remote/remotetest"
	"github.com/k3lab/k3lab/internal/step"
)

func TestPush(t *testing.T) {
	const sum = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
	const target = "/var/lib/k3lab/cache/" + sum
	local := filepath.Join(t.TempDir(), "k3s")
	if err := os.WriteFile(local, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		digests []string // what the machine says, one after the other; "" no such file
		want    string
		events  []string
		puts    bool
	}{
		{"it is there", []string{sum}, "", nil, false},
		{"it is not there", []string{"", sum}, "", []string{"copying 100 % of 0 MiB", "copy k3s (0 MiB)"}, true},
		{"another content is there", []string{"00", sum}, "", []string{"copying 100 % of 0 MiB", "copy k3s (0 MiB)"}, true},
		{"it arrives spoilt", []string{"", "00"}, "server-1: " + local + " arrived with the SHA-256 00, but " + sum +
			" is expected (try: look at " + local + " and at the machine's disk and memory)", []string{"copying 100 % of 0 MiB", "copy k3s (0 MiB)"}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := machine(t, func(_ context.Context, c remotetest.Call, out, errs io.Writer) int {
				if diff := cmp.Diff([]string{path, "digest", target}, c.Args); diff != "" {
					t.Error(diff)
				}
				is := test.digests[0]
				test.digests = test.digests[1:]
				if is == "" {
					fmt.Fprintf(errs, "k3lab-converger: stat %s: no such file or directory\n", target)
					return 1
				}
				fmt.Fprintf(out, "%s  %s\n", is, target)
				return 0
			})
			m.Answer("", "rm", "-f", "--", target)
			m.Answer("", "sh", "-c", `cd "$1" && ls -1t | tail -n +3 | xargs -r rm -f --`, "sh", "/var/lib/k3lab/cache")
			f, _ := open(t, map[string]*remotetest.Fake{"server-1": m})
			events, err := applying(t, func(ctx context.Context, w step.Writer) error {
				return f.Push(ctx, w, "server-1", fleet.Cached(local, sum))
			})
			if (err != nil || test.want != "") && (err == nil || err.Error() != test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			var messages []string
			for _, e := range events {
				messages = append(messages, e.Message)
			}
			if diff := cmp.Diff(test.events, messages); diff != "" {
				t.Error(diff)
			}
			if _, ok := m.File(target); ok != test.puts || len(test.digests) != 0 {
				t.Errorf("put %v, digests not asked for %q", ok, test.digests)
			}
		})
	}
}

// TestPushForAPlace: what is installed already is not copied again, and where all
// files stay none is removed.
func TestPushForAPlace(t *testing.T) {
	const sum = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
	local := filepath.Join(t.TempDir(), "app.tar")
	if err := os.WriteFile(local, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, installed := range map[string]bool{"it is installed": true, "it is not": false} {
		t.Run(name, func(t *testing.T) {
			digests := map[string]string{}
			if installed {
				digests["/images/app.tar"] = sum
			}
			var m *remotetest.Fake
			m = machine(t, func(_ context.Context, c remotetest.Call, out, errs io.Writer) int {
				if _, ok := m.File("/staged/" + sum); ok {
					digests["/staged/"+sum] = sum
				}
				if is := digests[c.Args[2]]; is != "" {
					fmt.Fprintf(out, "%s  %s\n", is, c.Args[2])
					return 0
				}
				fmt.Fprintf(errs, "k3lab-converger: stat %s: no such file or directory\n", c.Args[2])
				return 1
			})
			f, _ := open(t, map[string]*remotetest.Fake{"server-1": m})
			_, err := applying(t, func(ctx context.Context, w step.Writer) error {
				return f.Push(ctx, w, "server-1", fleet.Supply{From: local, To: "/staged/" + sum, SHA256: sum, At: "/images/app.tar"})
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, copied := m.File("/staged/" + sum); copied == installed {
				t.Errorf("copied %v, installed %v", copied, installed)
			}
		})
	}
}
