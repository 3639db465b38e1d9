package report_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/report"
)

func events() []report.Event {
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	return []report.Event{
		{Time: at, Kind: report.StepStarted, Step: "VMs"},
		{Time: at, Kind: report.ObjectState, Step: "VMs", Object: "server-1", Message: "cloning"},
		{Time: at, Kind: report.Progress, Step: "VMs", Object: "server-1", Message: "40%"},
		{Time: at, Kind: report.Warning, Step: "VMs", Object: "pve1", Message: "little space"},
		{Time: at, Kind: report.StepDone, Step: "VMs", Took: 1500 * time.Millisecond},
		{Time: at, Kind: report.StepFailed, Step: "K3s", Message: "server-1: broken\nlast lines"},
	}
}

func TestPlainWritesOneLineAnEvent(t *testing.T) {
	var out bytes.Buffer
	hub := report.NewHub(report.NewPlain(&out))
	for _, e := range events() {
		hub.Report(e)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		_, text, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if text == "" {
			text = strings.TrimSpace(line)
		}
		got = append(got, text)
	}
	want := []string{
		"VMs: server-1: cloning",
		"warning: VMs: pve1: little space",
		"VMs: done (1.5s)",
		"failed: K3s: server-1: broken",
		"last lines",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("lines (-want +got):\n%s", d)
	}
}

func TestJournalKeepsEventsButNoProgress(t *testing.T) {
	dir := t.TempDir()
	j, err := report.OpenJournal(dir+"/runs", "up")
	if err != nil {
		t.Fatal(err)
	}
	hub := report.NewHub(j)
	for _, e := range events() {
		hub.Report(e)
	}
	if err := hub.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(j.Path())
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n != len(events())-1 {
		t.Errorf("%d lines, want %d:\n%s", n, len(events())-1, text)
	}
	info, err := os.Stat(j.Path())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

// TestLiveEndsClean: what stays on the terminal is what was finished; the region
// that is redrawn is gone.
func TestLiveEndsClean(t *testing.T) {
	var out bytes.Buffer
	hub := report.NewHub(report.NewLive(&out, func() int { return 60 }))
	for _, e := range events() {
		hub.Report(e)
	}
	if err := hub.Close(); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	last := text[strings.LastIndex(text, "\x1b[J")+len("\x1b[J"):]
	if last != "" {
		t.Errorf("the region was left on the terminal: %q", last)
	}
	for _, want := range []string{"VMs", "little space", "server-1: broken"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q was never shown", want)
		}
	}
}

func TestTook(t *testing.T) {
	tests := map[time.Duration]string{
		300 * time.Millisecond:     "0.3s",
		12*time.Second + 1:         "12s",
		2*time.Minute + 5000000000: "2m05s",
		3600 * time.Second:         "60m00s",
	}
	for d, want := range tests {
		if got := report.Took(d); got != want {
			t.Errorf("Took(%d) = %q, want %q", d, got, want)
		}
	}
}
