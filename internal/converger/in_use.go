package converger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"time"
)

// inUsePath remembers, for each unit, what it was started with.
const inUsePath = memoryDir + "/in_use.json"

// startPatience is how long systemd may take to begin a start it has queued.
const startPatience = 5 * time.Second

// inUse is one start of a unit: systemd's ID of it and the digest of the
// resources the unit is restarted on. As long as that very start lives on, a
// file that was lost and is put back as it was is no reason for a restart.
type inUse struct {
	Invocation string `json:"invocation"`
	Digest     string `json:"digest"`
}

func loadInUse(v *view) map[string]inUse {
	var starts map[string]inUse
	if json.Unmarshal([]byte(v.text(inUsePath)), &starts) != nil || starts == nil {
		return map[string]inUse{}
	}
	return starts
}

// digestOf is the digest of what a unit should be started with.
func (v *view) digestOf(u *Unit) string {
	wanted := map[string]bool{}
	for _, id := range u.RestartOn {
		wanted[id] = true
	}
	h := sha256.New()
	for _, r := range v.state.Resources {
		if wanted[r.ID()] {
			r.Tags = nil
			h.Write(encode(r))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// runsAsDesired reports whether the unit still lives from a start with exactly
// what is desired now.
func (v *view) runsAsDesired(u *Unit) bool {
	is, start := v.units[u.Name], loadInUse(v)[u.Name]
	return is.invocation != "" && is.invocation == start.Invocation && start.Digest == v.digestOf(u)
}

// noteStart remembers what the unit was started with, once systemd has begun to.
func (w *writer) noteStart(ctx context.Context, u *Unit) error {
	if len(u.RestartOn) == 0 {
		return nil
	}
	before := w.view.units[u.Name].invocation
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		units, err := w.view.queries.units(ctx, []string{u.Name})
		if now := units[u.Name].invocation; err == nil && now != "" && now != before {
			return w.saveInUse(u, inUse{now, w.view.digestOf(u)})
		}
		select {
		case <-ctx.Done():
			// Not known: then the next change of a file restarts the unit, which is right too.
			return nil
		case <-again.C:
		}
	}
}

func (w *writer) saveInUse(u *Unit, start inUse) error {
	starts := maps.Clone(loadInUse(w.view))
	starts[u.Name] = start
	return w.replace(inUsePath, bytes.NewReader(encode(starts)), attributes{mode: 0o600})
}
