package converger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// programs runs the machine's own programs and returns what they write to
// stdout. A non-zero exit is a *programError.
type programs interface {
	run(ctx context.Context, env []string, args ...string) ([]byte, error)
}

// programError is a program that ran and failed.
type programError struct {
	args   []string
	code   int
	stderr string
}

func (e *programError) Error() string {
	why := e.stderr
	if why == "" {
		why = fmt.Sprintf("exit status %d", e.code)
	}
	args := slices.Clone(e.args[:min(len(e.args), 6)])
	for i, a := range args {
		if line, _, more := strings.Cut(a, "\n"); more {
			args[i] = line + "…"
		}
	}
	return strings.Join(args, " ") + ": " + why
}

// system runs programs for real.
type system struct{}

func (system) run(ctx context.Context, env []string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	// LC_ALL: messages are looked at.
	cmd.Env = append(append(os.Environ(), "LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// A program of its own group, so that interrupting it reaches its children.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return stdout.Bytes(), &programError{args: args, code: exit.ExitCode(), stderr: lastLines(stderr.String(), 10)}
	}
	return stdout.Bytes(), err
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// queries are the programs that only tell. Planning has no others.
type queries struct{ programs programs }

// unitState is what systemd says of a unit.
type unitState struct {
	name     string
	load     string
	active   string
	sub      string
	file     string // UnitFileState: enabled, disabled, static, masked, …
	result   string
	mainPID  string
	restarts string
	// invocation is another one at each start; empty where it never ran.
	invocation string
	stale      bool // systemd has not read its files since they changed
}

const unitProperties = "Id,Names,LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload,Result,MainPID,NRestarts,InvocationID"

// units asks systemd for these units in one go; patterns match loaded units.
func (q queries) units(ctx context.Context, names []string) (map[string]unitState, error) {
	args := append([]string{"systemctl", "show", "--no-pager", "--property=" + unitProperties, "--"}, names...)
	out, err := q.programs.run(ctx, nil, args...)
	if err != nil {
		return nil, fmt.Errorf("systemd does not answer: %w", err)
	}
	units := map[string]unitState{}
	for block := range strings.SplitSeq(string(out), "\n\n") {
		properties := map[string]string{}
		for line := range strings.SplitSeq(block, "\n") {
			if key, value, ok := strings.Cut(line, "="); ok {
				properties[key] = value
			}
		}
		u := unitState{
			name: properties["Id"], load: properties["LoadState"], active: properties["ActiveState"], sub: properties["SubState"],
			file: properties["UnitFileState"], result: properties["Result"], mainPID: properties["MainPID"],
			restarts: properties["NRestarts"], invocation: properties["InvocationID"], stale: properties["NeedDaemonReload"] == "yes",
		}
		for _, name := range append(strings.Fields(properties["Names"]), u.name) {
			units[name] = u
		}
	}
	return units, nil
}

// packages asks dpkg for these packages in one go. Those it does not know are
// missing in the answer.
func (q queries) packages(ctx context.Context, names []string) (map[string]string, error) {
	args := append([]string{"dpkg-query", "--show", "--showformat=${Package}\t${binary:Package}\t${db:Status-Abbrev}\n", "--"}, names...)
	out, err := q.programs.run(ctx, nil, args...)
	var failed *programError
	if err != nil && (!errors.As(err, &failed) || failed.code != 1) {
		return nil, err
	}
	packages := map[string]string{}
	for line := range strings.SplitSeq(string(out), "\n") {
		if f := strings.Split(line, "\t"); len(f) == 3 {
			status := strings.TrimSpace(f[2])
			packages[f[0]], packages[f[1]] = status, status
		}
	}
	return packages, nil
}

// journal returns the last lines a unit has logged; none where it cannot be read.
func (q queries) journal(ctx context.Context, unit string, lines int) string {
	out, err := q.programs.run(ctx, nil, "journalctl", "--no-pager", "--quiet", "--output=cat", fmt.Sprintf("--lines=%d", lines), "--unit="+unit)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
