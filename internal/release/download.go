package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	stallAfter = 30 * time.Second
	retryAfter = time.Second
	// tries is how often a download is begun or gone on with while no byte arrives.
	tries = 4
	// mostText bounds files that are read into memory, in bytes.
	mostText = 64 << 20
)

// Downloader gets files by HTTP. The zero value is ready to use.
type Downloader struct {
	Client *http.Client  // default: one that obeys the proxy settings of the environment
	Stall  time.Duration // without a byte, after which a download is given up; default 30 s
	Retry  time.Duration // before the first retry, doubled for each more; default 1 s
	// Progress, where set, is told how far a file is; total is -1 where nobody knows.
	Progress func(name string, done, total int64)
}

// defaultClient is one for all requests, so that they share connections.
var defaultClient = sync.OnceValue(newClient)

// newClient is the default client. A download that was promised over TLS is not
// taken over anything else.
func newClient() *http.Client {
	return &http.Client{
		Transport: http.DefaultTransport.(*http.Transport).Clone(),
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
				return fmt.Errorf("it redirects to %s://%s, which is not encrypted", req.URL.Scheme, req.URL.Host)
			}
			if len(via) >= 10 {
				return errors.New("it redirects again and again")
			}
			return nil
		},
	}
}

// Text returns a small file.
func (d *Downloader) Text(ctx context.Context, url string) (string, error) {
	var text strings.Builder
	err := d.retried(ctx, func() (bool, error) {
		text.Reset()
		body, err := d.get(ctx, url, 0)
		if err != nil {
			return false, err
		}
		defer body.Close()
		if body.code != http.StatusOK {
			return false, &statusError{body.code, body.status}
		}
		_, err = io.Copy(&text, io.LimitReader(body, mostText))
		return false, err
	})
	return text.String(), d.explained(ctx, url, err)
}

// retried calls f until it succeeds, fails for good, or fails several times in a
// row without having got anywhere.
func (d *Downloader) retried(ctx context.Context, f func() (progress bool, err error)) error {
	pause := d.Retry
	if pause == 0 {
		pause = retryAfter
	}
	for left := tries; ; {
		progress, err := f()
		if err == nil || !transient(err) || ctx.Err() != nil {
			return err
		}
		if progress {
			left = tries
		}
		if left--; left == 0 {
			return err
		}
		wait := time.NewTimer(pause << (tries - 1 - left))
		select {
		case <-ctx.Done():
			wait.Stop()
			return err
		case <-wait.C:
		}
	}
}

// get asks for the file from a byte on. The body fails when nothing arrives for
// some time; it must be closed.
func (d *Downloader) get(ctx context.Context, url string, from int64) (*body, error) {
	client := d.Client
	if client == nil {
		client = defaultClient()
	}
	stall := d.Stall
	if stall == 0 {
		stall = stallAfter
	}
	ctx, cancel := context.WithCancelCause(ctx)
	b := &body{ctx: ctx, cancel: cancel, stall: stall}
	b.timer = time.AfterFunc(stall, func() { cancel(&stalledError{stall}) })
	if err := b.open(client, url, from); err != nil {
		b.Close()
		return nil, b.cause(err)
	}
	return b, nil
}

// transfer appends to f what is missing of the file, and reports whether bytes
// arrived. Where the server cannot go on from there the file is begun anew.
func (d *Downloader) transfer(ctx context.Context, url, name string, f *os.File) (progress bool, err error) {
	from, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	body, err := d.get(ctx, url, from)
	if err != nil {
		return false, err
	}
	defer body.Close()
	total := body.length
	switch {
	case body.code == http.StatusOK:
		if err := restart(f); err != nil {
			return false, err
		}
		from = 0
	case body.code == http.StatusPartialContent && strings.HasPrefix(body.ranges, fmt.Sprintf("bytes %d-", from)):
		if total >= 0 {
			total += from
		}
	case from > 0 && (body.code == http.StatusPartialContent || body.code == http.StatusRequestedRangeNotSatisfiable):
		return false, errors.Join(errAnew, restart(f))
	default:
		return false, &statusError{body.code, body.status}
	}
	done := from
	n, err := io.Copy(f, readerFunc(func(p []byte) (int, error) {
		n, err := body.Read(p)
		if done += int64(n); d.Progress != nil && n > 0 {
			d.Progress(name, done, total)
		}
		return n, err
	}))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = &truncatedError{from + n, total}
	}
	return n > 0, err
}

func restart(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.Seek(0, io.SeekStart)
	return err
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
