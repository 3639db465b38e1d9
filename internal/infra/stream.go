package infra

import (
	"bytes"
	"encoding/json"
	"time"

	tfjson "github.com/hashicorp/terraform-json"

	"github.com/k3lab/k3lab/internal/report"
)

// message is one line of Terraform's machine-readable output, as far as it is
// used here.
type message struct {
	Type       string             `json:"type"`
	Diagnostic *tfjson.Diagnostic `json:"diagnostic"`
	Hook       *struct {
		Resource struct {
			Addr   string `json:"addr"`
			Module string `json:"module"`
			Type   string `json:"resource_type"`
			Name   string `json:"resource_name"`
			Key    any    `json:"resource_key"`
		} `json:"resource"`
		Action  string  `json:"action"`
		Elapsed float64 `json:"elapsed_seconds"`
	} `json:"hook"`
}

// stream reads Terraform's machine-readable output: it collects diagnostics and
// reports what is being made. A line that is no message is kept as text.
type stream struct {
	names       naming
	report      report.Reporter
	diagnostics []tfjson.Diagnostic
	rest        []byte
}

// Write takes output as it comes; lines may be split anywhere. It never fails.
func (s *stream) Write(p []byte) (int, error) {
	s.rest = append(s.rest, p...)
	for {
		line, rest, found := bytes.Cut(s.rest, []byte{'\n'})
		if !found {
			return len(p), nil
		}
		s.line(line)
		s.rest = rest
	}
}

func (s *stream) line(line []byte) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return
	}
	if m.Diagnostic != nil {
		s.diagnostics = append(s.diagnostics, *m.Diagnostic)
		if m.Diagnostic.Severity == tfjson.DiagnosticSeverityWarning {
			s.warn(*m.Diagnostic)
		}
	}
	if m.Hook == nil || m.Hook.Resource.Type == typeTrigger {
		return
	}
	r := m.Hook.Resource
	object := s.names.subjectOf(r.Addr, r.Module, r.Type, r.Name, r.Key, nil).String()
	took := time.Duration(m.Hook.Elapsed * float64(time.Second))
	v := verbs(m.Hook.Action)
	switch m.Type {
	case "apply_start":
		s.report.Report(report.Event{Kind: report.ObjectState, Object: object, Message: v.doing})
	case "apply_progress":
		s.report.Report(report.Event{Kind: report.Progress, Object: object, Message: v.doing, Took: took})
	case "apply_complete":
		s.report.Report(report.Event{Kind: report.ChangeMade, Object: object, Message: v.done, Took: took, Done: m.Hook.Action != "delete"})
	case "apply_errored":
		s.report.Report(report.Event{Kind: report.ObjectState, Object: object, Message: v.doing + " failed", Took: took, Failed: true})
	}
}

func (s *stream) warn(d tfjson.Diagnostic) {
	text := d.Summary
	if d.Detail != "" {
		text += ": " + oneLine(d.Detail)
	}
	e := report.Event{Kind: report.Warning, Message: text}
	if d.Address != "" {
		e.Object = s.names.subjectAt(d.Address).String()
	}
	s.report.Report(e)
}

type verb struct{ doing, done string }

func verbs(action string) verb {
	switch action {
	case "create":
		return verb{"creating", "created"}
	case "update":
		return verb{"updating", "updated"}
	case "delete":
		return verb{"destroying", "destroyed"}
	case "replace":
		return verb{"replacing", "replaced"}
	}
	return verb{action, action}
}
