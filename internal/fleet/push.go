package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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

// Push copies a file to the machine's cache under its hex SHA-256, unless it is
// there already, and returns its path there. The machine's own digest decides.
func (f *Fleet) Push(ctx context.Context, w step.Writer, machine, localFile, sha256 string) (string, error) {
	path := cacheDir + "/" + sha256
	is, err := f.digest(ctx, machine, path)
	if err != nil || is == sha256 {
		return path, err
	}
	if err := f.upload(ctx, w, machine, localFile, path); err != nil {
		return "", Named(machine, err)
	}
	is, err = f.digest(ctx, machine, path)
	if err != nil {
		return "", err
	}
	if is == sha256 {
		return path, nil
	}
	r, err := f.Runner(ctx, machine)
	if err != nil {
		return "", err
	}
	remove(ctx, r, path)
	return "", fault.New(fault.Failed, machine, "look at "+localFile+" and at the machine's disk and memory",
		"%s arrived with the SHA-256 %s, but %s is expected", localFile, is, sha256)
}

// Pushed returns where Push puts a file with this digest.
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

func (f *Fleet) upload(ctx context.Context, w step.Writer, machine, localFile, path string) error {
	file, err := os.Open(localFile)
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
	if err := r.Put(ctx, path, content, info.Size(), 0o755); err != nil {
		return err
	}
	w.Report(report.Event{Kind: report.ChangeMade, Object: machine, Message: fmt.Sprintf("copy %s (%d MiB)", info.Name(), info.Size()>>20)})
	prune := fmt.Sprintf(`cd "$1" && ls -1t | tail -n +%d | xargs -r rm -f --`, CacheKeeps+1)
	if err := r.Run(ctx, remote.Cmd{Args: []string{"sh", "-c", prune, "sh", cacheDir}, Root: true}); err != nil {
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
