package remote

import (
	"fmt"
	"strings"
	"sync"
)

// stderrKept is how much of a command's stderr an ExitError holds, in bytes:
// the end, because that is where the cause stands.
const stderrKept = 8 << 10

// ExitError is a command that ran and did not end with 0.
type ExitError struct {
	Args   []string
	Code   int    // exit code; 128 + number for a command ended by a signal
	Signal string // name without SIG, where a signal ended it
	Stderr string // the last 8 KiB
}

func (e *ExitError) Error() string {
	why := fmt.Sprintf("exit status %d", e.Code)
	if e.Signal != "" {
		why = "ended by signal " + e.Signal
	}
	if tail := lastLines(e.Stderr, 3); tail != "" {
		why += ": " + tail
	}
	return brief(e.Args) + ": " + why
}

// brief names a command in an error: its beginning, on one line.
func brief(args []string) string {
	const limit = 100
	line := strings.Join(strings.Fields(strings.Join(args, " ")), " ")
	if r := []rune(line); len(r) > limit {
		line = string(r[:limit]) + "…"
	}
	return line
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// tail keeps the end of what is written to it. Safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - stderrKept; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}
