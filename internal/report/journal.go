package report

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Journal keeps an operation's events as JSON lines in a file of its own.
type Journal struct {
	jsonLines Sink
	file      *os.File
}

// OpenJournal starts the journal of one operation in dir, which it makes.
func OpenJournal(dir, operation string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("run journal: %w", err)
	}
	name := time.Now().UTC().Format("20060102T150405.000Z") + "-" + operation + ".jsonl"
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("run journal: %w", err)
	}
	return &Journal{NewJSON(f), f}, nil
}

// Path is the journal's file.
func (j *Journal) Path() string { return j.file.Name() }

// Handle writes the event down.
func (j *Journal) Handle(e Event) {
	if e.Kind != Progress {
		j.jsonLines.Handle(e)
	}
}

// Close closes the file once what was written is on the disk.
func (j *Journal) Close() error {
	if err := j.file.Sync(); err != nil {
		j.file.Close()
		return fmt.Errorf("run journal: %w", err)
	}
	return j.file.Close()
}
