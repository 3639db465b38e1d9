package workspace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/fault"
)

// Lock is held by one operation at a time. It ends with its process, however
// that ends.
type Lock struct{ file *os.File }

// holder is who holds a lock, written into it for the others to read.
type holder struct {
	Operation string    `json:"operation"`
	PID       int       `json:"pid"`
	Host      string    `json:"host"`
	Since     time.Time `json:"since"`
}

// AcquireLock takes the workspace for an operation. Where another one has it,
// the error is fault.Locked and says which.
func AcquireLock(d Dir, operation string) (*Lock, error) {
	if err := os.MkdirAll(d.Path(".k3lab"), 0o700); err != nil {
		return nil, fmt.Errorf("workspace lock: %w", err)
	}
	f, err := os.OpenFile(d.Path(".k3lab/lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("workspace lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("workspace lock: %w", err)
		}
		return nil, held(d, f)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	text, err := json.Marshal(holder{operation, os.Getpid(), host, time.Now().UTC()})
	if err == nil {
		err = errors.Join(f.Truncate(0), writeAll(f, text))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("workspace lock: %w", err)
	}
	return &Lock{f}, nil
}

// CheckFree returns the error of AcquireLock where an operation is at work in the
// workspace, and takes nothing.
func CheckFree(d Dir) error {
	f, err := os.OpenFile(d.Path(".k3lab/lock"), os.O_RDONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("workspace lock: %w", err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return held(d, f)
	} else if err != nil {
		return fmt.Errorf("workspace lock: %w", err)
	}
	return nil
}

func writeAll(f *os.File, text []byte) error {
	_, err := f.WriteAt(text, 0)
	return err
}

func held(d Dir, f *os.File) error {
	var h holder
	who := "another k3lab"
	if text, err := io.ReadAll(f); err == nil && json.Unmarshal(text, &h) == nil {
		who = fmt.Sprintf("k3lab %s (process %d on %s, since %s)", h.Operation, h.PID, h.Host, h.Since.Local().Format("15:04:05"))
	}
	return fault.New(fault.Locked, d.Root(), "again when it is done", "%s is at work in this workspace", who)
}

// Release gives the workspace back.
func (l *Lock) Release() error {
	if err := l.file.Truncate(0); err != nil {
		l.file.Close()
		return fmt.Errorf("workspace lock: %w", err)
	}
	return l.file.Close()
}
