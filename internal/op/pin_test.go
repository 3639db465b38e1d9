package op

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/release"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
	"github.com/k3lab/k3lab/internal/workspace"
)

// pinned is a session of a lab with machines of both architectures, whose releases
// come from a server.
func pinned(t *testing.T, files map[string]string, locked release.Digests) (*session, *httptest.Server) {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := files[strings.TrimPrefix(r.URL.Path, "/v1.36.3+k3s1/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(text))
	}))
	t.Cleanup(server.Close)
	dir, err := workspace.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	lab := &config.Lab{K3s: config.K3s{Version: "v1.36.3+k3s1"}}
	for name, arch := range map[string]string{"server-1": "amd64", "server-2": "amd64", "agent-1": "arm64"} {
		lab.Machines = append(lab.Machines, &config.Machine{Name: name, Role: config.RoleServer, Enabled: true, Arch: arch})
	}
	return &session{lab: lab, dir: dir, supplies: &supplies{source: &release.Source{
		Version: lab.K3s.Version, Locked: locked, BaseURL: server.URL, CacheDir: dir.Cache(),
		Get: release.Downloader{Client: server.Client(), Retry: time.Millisecond},
	}}}, server
}

var (
	digitsA, digitsB = strings.Repeat("a", 64), strings.Repeat("b", 64)
	lists            = map[string]string{"sha256sum-amd64.txt": digitsA + "  k3s\n", "sha256sum-arm64.txt": digitsB + "  k3s-arm64\n"}
	both             = release.Digests{"k3s/v1.36.3+k3s1/k3s": digitsA, "k3s/v1.36.3+k3s1/k3s-arm64": digitsB}
)

// TestPinWritesWhatItHasShown: the first use of a version is a change like any other.
func TestPinWritesWhatItHasShown(t *testing.T) {
	s, _ := pinned(t, lists, release.Digests{})
	path := s.dir.Path(release.LockFile)
	seq := step.Sequence{&pin{s}}
	plan, err := seq.Plan(context.Background(), report.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := []step.Change{{
		Layer: "platform", Object: "this workspace", Resource: "file k3lab.lock", Action: step.Create, After: both.Text(),
		Detail: "digests of K3s v1.36.3+k3s1 as the release publishes them now; from here on no other files are taken",
	}}
	if d := cmp.Diff(want, plan.Changes()); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the plan wrote it")
	}
	if err := seq.Apply(context.Background(), report.Discard, plan); err != nil {
		t.Fatal(err)
	}
	if got, err := release.ReadDigests(path); err != nil || !cmp.Equal(both, got) {
		t.Errorf("%v (-want +got):\n%s", err, cmp.Diff(both, got))
	}
}

// TestPinIsThereWhereItIsNeeded: not where everything is locked, nor for a binary
// that is given.
func TestPinIsThereWhereItIsNeeded(t *testing.T) {
	tests := map[string]struct {
		locked release.Digests
		given  string
		want   []wanted
	}{
		"nothing locked":         {nil, "", []wanted{{"amd64", "k3s"}, {"arm64", "k3s-arm64"}}},
		"one locked":             {release.Digests{"k3s/v1.36.3+k3s1/k3s": digitsA}, "", []wanted{{"arm64", "k3s-arm64"}}},
		"all locked":             {both, "", nil},
		"another version":        {release.Digests{"k3s/v1.36.2+k3s1/k3s": digitsA}, "", []wanted{{"amd64", "k3s"}, {"arm64", "k3s-arm64"}}},
		"a binary that is given": {nil, "/k3s", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, _ := pinned(t, nil, tt.locked)
			s.supplies.source.Binary = tt.given
			got := s.unlocked()
			if d := cmp.Diff(tt.want, sortedByName(got), cmp.AllowUnexported(wanted{})); d != "" && len(tt.want)+len(got) > 0 {
				t.Errorf("(-want +got):\n%s", d)
			}
			if n := len(s.platform(time.Second)); n != 1+min(1, len(tt.want)) {
				t.Errorf("the platform layer has %d steps", n)
			}
		})
	}
}

func sortedByName(list []wanted) []wanted {
	if len(list) == 2 && list[0].arch > list[1].arch {
		list[0], list[1] = list[1], list[0]
	}
	return list
}

// TestPinWaitsForARelease that does not answer while it is planned, and then says so.
func TestPinWaitsForARelease(t *testing.T) {
	s, server := pinned(t, lists, release.Digests{})
	server.Close()
	seq := step.Sequence{&pin{s}}
	plan, err := seq.Plan(context.Background(), report.Discard)
	if err != nil || len(plan.Changes()) != 1 || !strings.Contains(plan.Changes()[0].Deferred, "connection refused") {
		t.Fatalf("plan %+v, %v, want it deferred", plan.Changes(), err)
	}
	if err := seq.Apply(context.Background(), report.Discard, plan); fault.KindOf(err) != fault.Unreachable {
		t.Errorf("apply: %v, want the release unreachable", err)
	}
	// One that answers that there is no such version fails at once.
	s, _ = pinned(t, nil, release.Digests{})
	if _, err := (&pin{s}).Plan(context.Background(), report.Discard); fault.KindOf(err) != fault.Invalid {
		t.Errorf("no such release: %v", err)
	}
}
