package release

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/k3lab/k3lab/internal/fault"
)

// errAnew says that a part could not be gone on with.
var errAnew = errors.New("the server cannot go on where the download ended")

type stalledError struct{ after time.Duration }

func (e *stalledError) Error() string { return fmt.Sprintf("nothing arrived for %s", e.after) }

type statusError struct {
	code   int
	status string
}

func (e *statusError) Error() string { return "the answer is " + e.status }

type truncatedError struct{ done, total int64 }

func (e *truncatedError) Error() string {
	return fmt.Sprintf("the connection ended after %s of %s", size(e.done), size(e.total))
}

type pageError struct{ host, title string }

func (e *pageError) Error() string {
	if e.title == "" {
		return e.host + " answers with a web page instead of the file"
	}
	return fmt.Sprintf("%s answers with a web page (%q) instead of the file", e.host, e.title)
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n < 0:
		return "an unknown size"
	case n < 1<<20:
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// transient reports whether trying again may help.
func transient(err error) bool {
	var stalled *stalledError
	var truncated *truncatedError
	var status *statusError
	var timeout net.Error
	switch {
	case errors.Is(err, errAnew), errors.As(err, &stalled), errors.As(err, &truncated):
		return true
	case errors.As(err, &status):
		return status.code == http.StatusTooManyRequests || status.code == http.StatusRequestTimeout || status.code >= 500 && status.code != http.StatusNotImplemented
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return true
	}
	return errors.As(err, &timeout) && timeout.Timeout()
}

func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

const useFile = "K3LAB_K3S_BINARY=FILE, or K3LAB_K3S_RELEASES=URL of a mirror, where there is no download"

// explained makes of what went wrong with a download what somebody can act on.
func (d *Downloader) explained(ctx context.Context, address string, err error) error {
	var page *pageError
	var status *statusError
	var untrusted *tls.CertificateVerificationError
	var broken *url.Error
	var file *fs.PathError
	known := new(fault.Error)
	if errors.As(err, &broken) {
		err = broken.Err // its address may be a signed one that a redirect led to
	}
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case diskFull(err):
		return fault.New(fault.Failed, address, "make room there, then again", "disk full: %w", err)
	case errors.As(err, &page):
		return fault.New(fault.Unreachable, address, "sign in to this network or set HTTPS_PROXY, then again",
			"%w: that is the page of a network to sign in to, or of a proxy", err)
	case errors.As(err, &status) && status.code == http.StatusNotFound:
		return fault.New(fault.Invalid, address, "look at k3s.version in ansible/group_vars/all.yaml: is there such a release?", "%w", err)
	case errors.As(err, &status) && status.code == http.StatusProxyAuthRequired:
		return fault.New(fault.Unreachable, address, "put user and password into HTTPS_PROXY", "%w", err)
	case errors.As(err, &untrusted):
		return fault.New(fault.Unreachable, address, "if a proxy of yours looks into TLS: SSL_CERT_FILE=its CA", "%w", err)
	case transient(err):
		return fault.New(fault.Unreachable, address, "again: it goes on where it ended", "%w", err)
	case errors.As(err, &file):
		return fault.New(fault.Failed, address, "", "%w", err)
	}
	return fault.New(fault.Unreachable, address, useFile, "%w", err)
}
