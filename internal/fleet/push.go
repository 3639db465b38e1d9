package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/remote"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/step"
)

// CacheKeeps is how many files stay in a machine's cache: the newest, and the one
// before it for the way back.
const CacheKeeps = 2

// cleanUp bounds what is still done after an interruption.
const cleanUp = 10 * time.Second

// Supply is a file of this computer that machines need.
type Supply struct {
	From   string `json:"from"`   // here
	To     string `json:"to"`     // on the machine
	SHA256 string `json:"sha256"` // hex
	// Keep is how many files stay in its folder there, the newest; 0: all.
	Keep int `json:"keep"`
	// At is where it is installed from To, and then no longer needed there.
	At string `json:"at,omitempty"`
}

// Push copies a file to the machine unless it is there already. The machine's own
// digest decides.
func (f *Fleet) Push(ctx context.Context, w step.Writer, machine string, s Supply) error {
	for _, at := range []string{s.At, s.To} {
		if at == "" {
			continue
		}
		if is, err := f.digest(ctx, machine, at); err != nil || is == s.SHA256 {
			return err
		}
	}
	if err := f.upload(ctx, w, machine, s); err != nil {
		return Named(machine, err)
	}
	is, err := f.digest(ctx, machine, s.To)
	if err != nil || is == s.SHA256 {
		return err
	}
	r, err := f.Runner(ctx, machine)
	if err != nil {
		return err
	}
	remove(ctx, r, s.To)
	return fault.New(fault.Failed, machine, "look at "+s.From+" and at the machine's disk and memory",
		"%s arrived with the SHA-256 %s, but %s is expected", s.From, is, s.SHA256)
}

// Cached is the supply of a file that stays in the machine's cache.
func Cached(file, sha256 string) Supply {
	return Supply{From: file, To: Pushed(sha256), SHA256: sha256, Keep: CacheKeeps}
}

// Pushed returns where the machine's cache has a file with this digest.
func Pushed(sha256 string) string { return cacheDir + "/" + sha256 }

// digest asks the converger, which remembers; "" where there is no such file.
func (f *Fleet) digest(ctx context.Context, machine, path string) (string, error) {
	var out bytes.Buffer
	if err := f.run(ctx, machine, &out, nil, "digest", path); err != nil {
		if isExit(err) && strings.Contains(err.Error(), "no such file") {
			return "", nil
		}
		return "", err
	}
	sum, _, _ := strings.Cut(out.String(), " ")
	return sum, nil
}

func (f *Fleet) upload(ctx context.Context, w step.Writer, machine string, s Supply) error {
	file, err := os.Open(s.From)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	r, err := f.Runner(ctx, machine)
	if err != nil {
		return err
	}
	content := &counted{r: file, size: info.Size(), told: func(percent int64) {
		w.Report(report.Event{Kind: report.Progress, Object: machine, Message: fmt.Sprintf("copying %d %% of %d MiB", percent, info.Size()>>20)})
	}}
	if err := r.Put(ctx, s.To, content, info.Size(), 0o755); err != nil {
		return err
	}
	w.Report(report.Event{Kind: report.ChangeMade, Object: machine, Message: fmt.Sprintf("copy %s (%d MiB)", info.Name(), info.Size()>>20)})
	if s.Keep == 0 {
		return nil
	}
	prune := fmt.Sprintf(`cd "$1" && ls -1t | tail -n +%d | xargs -r rm -f --`, s.Keep+1)
	if err := r.Run(ctx, remote.Cmd{Args: []string{"sh", "-c", prune, "sh", path.Dir(s.To)}, Root: true}); err != nil {
		return fmt.Errorf("old files of the cache: %w", err)
	}
	return nil
}

// counted tells how much has been read, in steps of ten percent.
type counted struct {
	r          io.Reader
	size, done int64
	last       int64
	told       func(percent int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.done += int64(n)
	if percent := c.done * 100 / max(c.size, 1); percent >= c.last+10 {
		c.last = percent - percent%10
		c.told(c.last)
	}
	return n, err
}

func isExit(err error) bool {
	var exit *remote.ExitError
	return errors.As(err, &exit)
}
