package release

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// body is a response that is given up when nothing arrives for some time.
type body struct {
	ctx    context.Context // of the request alone
	cancel context.CancelCauseFunc
	body   io.ReadCloser
	reader io.Reader
	timer  *time.Timer
	stall  time.Duration

	code   int
	status string
	ranges string // Content-Range
	length int64  // -1 where it is not known
}

// open asks for the file from a byte on.
func (b *body) open(client *http.Client, url string, from int64) error {
	req, err := http.NewRequestWithContext(b.ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	// A part can only be gone on with where bytes are those of the file.
	req.Header.Set("Accept-Encoding", "identity")
	if from > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(from, 10)+"-")
	}
	resp, err := client.Do(req) //nolint:bodyclose // Close does
	if err != nil {
		return err
	}
	b.body, b.code, b.status, b.ranges, b.length = resp.Body, resp.StatusCode, resp.Status, resp.Header.Get("Content-Range"), resp.ContentLength
	if b.code < http.StatusMultipleChoices {
		return b.peek(resp)
	}
	return nil
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.reader.Read(p)
	if n > 0 {
		b.timer.Reset(b.stall)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.cause(err)
	}
	return n, err
}

// cause is why the request was given up, where it was; else the error itself.
func (b *body) cause(err error) error {
	var stalled *stalledError
	if errors.As(context.Cause(b.ctx), &stalled) {
		return stalled
	}
	return err
}

// Close ends the request.
func (b *body) Close() {
	b.timer.Stop()
	b.cancel(nil)
	if b.body != nil {
		b.body.Close()
	}
}

var pageTitle = regexp.MustCompile(`(?is)<title[^>]*>\s*([^<]{1,80}?)\s*</title>`)

// peek refuses a web page: nothing that is downloaded here is one. It looks at
// what arrives first and waits for no more. What fails then, reading tells.
func (b *body) peek(resp *http.Response) error {
	start := make([]byte, 4<<10)
	n, err := b.body.Read(start)
	start = start[:n]
	b.reader = io.MultiReader(bytes.NewReader(start), b.body)
	if err != nil {
		b.reader = io.MultiReader(bytes.NewReader(start), readerFunc(func([]byte) (int, error) { return 0, err }))
	}
	declared, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if declared != "text/html" && !strings.HasPrefix(http.DetectContentType(start), "text/html") {
		return nil
	}
	page := &pageError{host: resp.Request.URL.Host}
	if m := pageTitle.FindSubmatch(start); m != nil {
		page.title = string(m[1])
	}
	return page
}
