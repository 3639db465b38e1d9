package component

import (
	"bytes"
	"io"
)

// quieter passes on a log line by line, except the lines klog marks as
// informational: an I, four digits for the date, and a space.
type quieter struct {
	out  io.Writer
	rest []byte
}

func (q *quieter) Write(data []byte) (int, error) {
	q.rest = append(q.rest, data...)
	for {
		end := bytes.IndexByte(q.rest, '\n')
		if end < 0 {
			return len(data), nil
		}
		line := q.rest[:end+1]
		q.rest = q.rest[end+1:]
		if informational(line) {
			continue
		}
		if _, err := q.out.Write(line); err != nil {
			return 0, err
		}
	}
}

func informational(line []byte) bool {
	const shortest = len("I0101 ")
	if len(line) < shortest || line[0] != 'I' || line[shortest-1] != ' ' {
		return false
	}
	for _, c := range line[1 : shortest-1] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
