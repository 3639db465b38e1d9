package release_test

import (
	"context"
	"strings"
	"testing"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/release"
)

// channels is an answer of the channel server, shortened.
const channels = `{"type":"collection","links":{"self":"https://update.k3s.io/v1-release/channels"},"resourceType":"channels","data":[
{"id":"stable","type":"channel","name":"stable","latest":"v1.35.7+k3s1"},
{"id":"latest","type":"channel","name":"latest","latest":"v1.36.3+k3s1"},
{"id":"v1.35","type":"channel","name":"v1.35","latest":"v1.35.7+k3s1"},
{"id":"v1.36-testing","type":"channel","name":"v1.36-testing","latest":"v1.36.4-rc1+k3s1"},
{"id":"testing","type":"channel","name":"testing"},
{"id":"v1.36","type":"channel","name":"v1.36","latest":"v1.36.3+k3s1"}]}`

func TestResolve(t *testing.T) {
	tests := map[string]struct {
		channel, answer string
		want            string // the version, else the error
		kind            fault.Kind
	}{
		"stable":           {"stable", channels, "v1.35.7+k3s1", 0},
		"latest":           {"latest", channels, "v1.36.3+k3s1", 0},
		"a minor version":  {"v1.36", channels, "v1.36.3+k3s1", 0},
		"one there is not": {"v1.99", channels, "channel v1.99: K3s has no such channel (try: one of stable, latest, v1.36, v1.35)", fault.Invalid},
		"one with nothing": {"testing", channels, "channel testing: K3s has no such channel (try: one of stable, latest, v1.36, v1.35)", fault.Invalid},
		"no list":          {"stable", "{}", "URL: the answer is no list of channels", fault.Unreachable},
		"no JSON":          {"stable", "sorry", "URL: the answer is no list of channels", fault.Unreachable},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, map[string]string{"channels": tt.answer})
			d := s.downloader()
			got, err := release.Resolve(context.Background(), &d, s.URL+"/channels", tt.channel)
			if tt.kind == 0 {
				if err != nil || got != tt.want {
					t.Errorf("got %s, %v, want %s", got, err, tt.want)
				}
				return
			}
			want := tt.want
			if rest, ok := strings.CutPrefix(want, "URL"); ok {
				want = s.URL + "/channels" + rest
			}
			if err == nil || err.Error() != want || fault.KindOf(err) != tt.kind {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

func TestCheckMove(t *testing.T) {
	older := func(to, from string) string {
		return "k3s.version: " + to + " is older than " + from + ", and a cluster cannot go back (try: stay, or restore a datastore snapshot of the older version; --force, where no cluster runs yet)"
	}
	tests := map[string]struct{ from, to, want string }{
		"the same":                {"v1.36.3+k3s1", "v1.36.3+k3s1", ""},
		"a patch":                 {"v1.36.3+k3s1", "v1.36.10+k3s1", ""},
		"a build":                 {"v1.36.3+k3s9", "v1.36.3+k3s10", ""},
		"a minor version":         {"v1.36.3+k3s1", "v1.37.0+k3s1", ""},
		"a candidate's release":   {"v1.36.3-rc1+k3s1", "v1.36.3+k3s1", ""},
		"back a patch":            {"v1.36.3+k3s1", "v1.36.2+k3s9", older("v1.36.2+k3s9", "v1.36.3+k3s1")},
		"back a build":            {"v1.36.3+k3s10", "v1.36.3+k3s9", older("v1.36.3+k3s9", "v1.36.3+k3s10")},
		"back to a candidate":     {"v1.36.3+k3s1", "v1.36.3-rc1+k3s1", older("v1.36.3-rc1+k3s1", "v1.36.3+k3s1")},
		"back a minor version":    {"v1.36.3+k3s1", "v1.35.9+k3s1", older("v1.35.9+k3s1", "v1.36.3+k3s1")},
		"over a minor version":    {"v1.34.3+k3s1", "v1.36.0+k3s1", "k3s.version: from v1.34.3+k3s1 to v1.36.0+k3s1 minor versions would be skipped, and a cluster moves one at a time (try: k3lab lock --k3s-channel v1.35, then up; --force, where no cluster runs yet)"},
		"another major version":   {"v1.36.3+k3s1", "v2.0.0+k3s1", "k3s.version: from v1.36.3+k3s1 to v2.0.0+k3s1 minor versions would be skipped, and a cluster moves one at a time (try: k3lab lock --k3s-channel v1.37, then up; --force, where no cluster runs yet)"},
		"something else entirely": {"v1.36.3+k3s1", "stable", `version stable: could not parse "stable" as version`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := release.CheckMove(tt.from, tt.to); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
