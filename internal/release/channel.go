package release

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/k3lab/k3lab/internal/fault"
)

// Channels is where K3s says which version each of its channels stands for now.
const Channels = "https://update.k3s.io/v1-release/channels"

// Resolve returns the version that a channel (stable, latest, v1.36) stands for
// now. base is the channel server; empty: K3s's own.
func Resolve(ctx context.Context, get *Downloader, base, channel string) (string, error) {
	if base == "" {
		base = Channels
	}
	text, err := get.Text(ctx, base)
	if err != nil {
		return "", err
	}
	var list struct {
		Data []struct{ ID, Latest string } `json:"data"`
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list.Data) == 0 {
		return "", fault.New(fault.Unreachable, base, "", "the answer is no list of channels")
	}
	var names []string
	for _, c := range list.Data {
		if c.ID == channel && c.Latest != "" {
			return c.Latest, nil
		}
		if c.Latest != "" && !strings.Contains(c.ID, "testing") {
			names = append(names, c.ID)
		}
	}
	// The newest minor versions are the last; stable and latest come first.
	slices.SortStableFunc(names, func(a, b string) int { return numbered(a) - numbered(b) })
	return "", fault.New(fault.Invalid, "channel "+channel, "one of "+strings.Join(names, ", "), "K3s has no such channel")
}

// numbered orders names of channels: words first, then the newest minor version.
func numbered(channel string) int {
	v, err := version.ParseGeneric(channel)
	if err != nil {
		return -1 << 20
	}
	return -int(v.Minor()) //nolint:gosec // a minor version is small
}
