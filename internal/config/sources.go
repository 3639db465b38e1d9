package config

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// Sources is the side index of a Lab: where each setting stands.
//
// A key is the file's name without extension, then the path in it:
// "nodes.machines.server-1.ip", "network.dns_servers[0]",
// "proxmox.endpoints.home.url", "all.k3s.version". What a machine inherits is
// found at its own key and stands in the defaults.
type Sources struct {
	lines map[string][]string // as they may be shown
	spans map[string]span
}

// span is a place and how many characters it covers.
type span struct {
	Position
	width int
}

func newSources() *Sources {
	return &Sources{lines: map[string][]string{}, spans: map[string]span{}}
}

// Position returns where the setting stands. For one that is not written down it
// is where its parent stands, and for an unknown file the zero Position.
func (s *Sources) Position(key string) Position { return s.span(key).Position }

func (s *Sources) span(key string) span {
	if s == nil {
		return span{}
	}
	for {
		if at, ok := s.spans[key]; ok {
			return at
		}
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			return span{}
		}
		key = key[:i]
	}
}

// addFile makes the lines of a file known, and its own key.
func (s *Sources) addFile(file string, src []byte) {
	lines := strings.Split(normalised(src), "\n")
	for i, line := range lines {
		lines[i] = redacted(line, credentials, secretText)
	}
	s.lines[file] = lines
	s.spans[stem(file)] = span{Position: Position{File: file}}
}

// normalised is the text without a byte order mark and with Unix line ends; lines
// and columns stay the same.
func normalised(src []byte) string {
	return strings.ReplaceAll(strings.TrimPrefix(string(src), "\ufeff"), "\r\n", "\n")
}

func (s *Sources) line(p Position) string {
	lines := s.lines[p.File]
	if p.Line < 1 || p.Line > len(lines) {
		return ""
	}
	return lines[p.Line-1]
}

// problem makes a problem of a place, held within the line it stands on.
func (s *Sources) problem(at span, warning bool, message, hint string) Problem {
	at.Line = min(at.Line, len(s.lines[at.File]))
	source := s.line(at.Position)
	length := utf8.RuneCountInString(source)
	if at.Line > 0 {
		at.Column = min(max(at.Column, 1), length+1)
	}
	return Problem{
		Position: at.Position, Warning: warning, Message: redacted(message, credentials), Hint: hint,
		Source: source, Width: min(max(at.width, 1), max(length-at.Column+1, 1)),
	}
}

// Position returns where a setting stands, for messages of later checks; see
// Sources for the form of key. A Lab that was not loaded has no positions.
func (l *Lab) Position(key string) Position { return l.Sources.Position(key) }

func stem(file string) string {
	name := file[strings.LastIndexByte(file, '/')+1:]
	return strings.TrimSuffix(name, ".yaml")
}

// What must not be shown when it has strayed into the settings: the value of a
// key that sounds like a secret, credentials in a URL, a private key.
var (
	secretText  = regexp.MustCompile(`(?i)(?:token|password|passwd|secret)["']?\s*[:=]\s*([^\s,}#]+)|PRIVATE KEY-----(.+)$`)
	credentials = regexp.MustCompile(`://([^/@\s]+)@`)
)

// redacted stars what forms find out and keeps every other character at its
// column.
func redacted(line string, forms ...*regexp.Regexp) string {
	for _, form := range forms {
		var out strings.Builder
		done := 0
		for _, m := range form.FindAllStringSubmatchIndex(line, -1) {
			for i := 2; i < len(m); i += 2 {
				if m[i] >= 0 {
					out.WriteString(line[done:m[i]])
					out.WriteString(strings.Repeat("*", utf8.RuneCountInString(line[m[i]:m[i+1]])))
					done = m[i+1]
				}
			}
		}
		line = out.String() + line[done:]
	}
	return line
}
