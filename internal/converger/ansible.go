package converger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// moduleArgs are what a binary module of Ansible is given: a JSON file whose path
// is the only argument ("-" is standard input). Beside the module's own option,
// request, Ansible puts options of its own into it, of which these two matter.
type moduleArgs struct {
	Request json.RawMessage `json:"request"`
	Check   bool            `json:"_ansible_check_mode"`
	Diff    bool            `json:"_ansible_diff"`
}

// moduleResult is the one JSON document that Ansible reads from standard output.
type moduleResult struct {
	Changed bool         `json:"changed"`
	Failed  bool         `json:"failed,omitempty"`
	Msg     string       `json:"msg,omitempty"`
	Changes []Change     `json:"changes"`           // made; in check mode: to be made
	Held    []Change     `json:"held,omitempty"`    // to be made to what the request holds
	Notices []string     `json:"notices,omitempty"` // neither changes nor failures
	Diff    []moduleDiff `json:"diff,omitempty"`
	// Missing are the sources of binaries to be installed that are not on the
	// machine. Then nothing was made: they are to be copied there first.
	Missing []string `json:"missing,omitempty"`
	// Confirm are guarded changes that were made and are put back unless they are
	// confirmed, with "confirm ID" over a new connection.
	Confirm []Confirm `json:"confirm,omitempty"`
}

// moduleDiff is one entry of what --diff shows: a line as it is (prepared), or two
// texts with their headers. A text may be empty, but not left out.
type moduleDiff map[string]string

// isModuleCall reports whether Ansible has started this program.
func isModuleCall(args []string) bool {
	return len(args) == 1 && (args[0] == "-" || strings.HasPrefix(args[0], "/"))
}

// module is the converger as a module of Ansible. It always answers with one
// JSON document; it returns ErrFailed when that one says that something failed.
func module(ctx context.Context, c *Converger, path string, stdin io.Reader, out *json.Encoder) error {
	result, err := c.module(ctx, path, stdin)
	if err != nil {
		result.Failed = true
		result.Msg = strings.TrimPrefix(result.Msg+"; "+err.Error(), "; ")
	}
	if result.Changes == nil {
		result.Changes = []Change{}
	}
	if encoded := out.Encode(result); encoded != nil {
		return encoded
	}
	if result.Failed {
		return ErrFailed
	}
	return nil
}

func (c *Converger) module(ctx context.Context, path string, stdin io.Reader) (moduleResult, error) {
	args, q, err := readModuleArgs(path, stdin)
	if err != nil {
		return moduleResult{}, err
	}
	var r moduleResult
	var failures []string
	take := func(change Change) {
		switch {
		case change.Confirm != nil:
			r.Confirm = append(r.Confirm, *change.Confirm)
		case change.Error != "":
			failures = append(failures, change.Resource+": "+change.Error)
		case change.Notice != "":
			r.Notices = append(r.Notices, change.Resource+": "+change.Notice)
		}
		// In check mode what could not be read may still be known to change.
		if change.IsChange() && (change.Error == "" || args.Check) && change.Notice == "" {
			r.Changes = append(r.Changes, change)
		}
	}
	if args.Check {
		err = c.modulePlan(ctx, q, &r, take)
	} else {
		err = c.moduleApply(ctx, q, &r, take)
	}
	r.Changed = len(r.Changes) > 0
	if args.Diff {
		for _, change := range r.Changes {
			r.Diff = append(r.Diff, change.moduleDiff())
		}
	}
	if errors.Is(err, ErrFailed) {
		err = nil
	}
	if failures != nil {
		r.Failed, r.Msg = true, strings.Join(failures, "; ")
	}
	return r, err
}

func readModuleArgs(path string, stdin io.Reader) (moduleArgs, Request, error) {
	var args moduleArgs
	var q Request
	text, err := readAll(path, stdin)
	if err != nil {
		return args, q, err
	}
	if err := json.Unmarshal(text, &args); err != nil {
		return args, q, fmt.Errorf("arguments: %w", err)
	}
	if args.Request == nil {
		return args, q, errors.New("arguments: request is missing")
	}
	return args, q, decode(strings.NewReader(string(args.Request)), &q)
}

func readAll(path string, stdin io.Reader) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(path)
}

// modulePlan plans what is held too, so that it is known, and tells it apart.
func (c *Converger) modulePlan(ctx context.Context, q Request, r *moduleResult, take func(Change)) error {
	hold, only := q.Hold, q.Only
	q.Hold, q.Only = nil, nil
	return c.Plan(ctx, q, func(change Change) {
		switch {
		case only != nil && !slices.Contains(only, change.Resource):
		case !slices.Contains(hold, change.Resource):
			take(change)
		case change.IsChange():
			r.Held = append(r.Held, change)
		}
	})
}

func (c *Converger) moduleApply(ctx context.Context, q Request, r *moduleResult, take func(Change)) error {
	var err error
	if r.Missing, err = c.missing(q); err != nil || r.Missing != nil {
		return err
	}
	if err := c.Apply(ctx, q, take); err != nil || len(q.Hold) == 0 {
		return err
	}
	// What cannot be read of the held resources fails when they are no longer held.
	err = c.modulePlan(ctx, q, r, func(Change) {})
	if errors.Is(err, ErrFailed) {
		return nil
	}
	return err
}

// missing names the sources of what the request would install and
// whose content is not on this machine.
func (c *Converger) missing(q Request) ([]string, error) {
	if err := q.validate(); err != nil {
		return nil, err
	}
	v := observe(c.root, c.programs, q.State)
	v.digests = loadDigests(v)
	defer v.digests.save()
	var out []string
	for _, r := range q.State.Resources {
		path, source, want := r.supplied()
		if path == "" || !r.hasTag(q.Tags) || slices.Contains(q.Hold, r.ID()) || q.Only != nil && !slices.Contains(q.Only, r.ID()) {
			continue
		}
		// What cannot be read is no match; why, the plan says.
		if sum, err := v.digests.of(path); err == nil && sum == want {
			continue
		}
		if sum, err := v.digests.of(source); err != nil || sum != want {
			out = append(out, source)
		}
	}
	return out, nil
}

// supplied is where a resource is installed whose content is copied to the machine
// first, where that is put, and its digest.
func (r Resource) supplied() (path, source, sha256 string) {
	switch {
	case r.Binary != nil:
		return r.Binary.Path, r.Binary.Source, r.Binary.SHA256
	case r.Archive != nil:
		return r.Archive.Path, r.Archive.Source, r.Archive.SHA256
	}
	return "", "", ""
}

// moduleDiff shows texts as Ansible compares them, and in one line what one line
// says.
func (c Change) moduleDiff() moduleDiff {
	line := c.Action + " " + c.Resource
	if c.Detail != "" {
		line += ": " + c.Detail
	}
	if c.Before == c.After || !strings.HasPrefix(c.Resource, "file ") && !strings.Contains(c.Before+c.After, "\n") {
		return moduleDiff{"prepared": line + "\n"}
	}
	return moduleDiff{"before": c.Before, "after": c.After, "before_header": line, "after_header": line}
}
