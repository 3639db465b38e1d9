package workspace

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// initGit makes the workspace a git repository, unless it is part of one that
// does not ignore it. Committing is the user's.
func (r *Result) initGit(d Dir) error {
	if _, err := os.Stat(d.Path(".git")); err == nil {
		return nil
	}
	if _, err := exec.LookPath("git"); err != nil {
		r.Notices = append(r.Notices, "git is not installed, so this is no git repository yet.")
		return nil //nolint:nilerr // said in the notice
	}
	if _, err := git(d, "rev-parse", "--show-toplevel"); err == nil {
		if _, err := git(d, "check-ignore", "--quiet", "."); err != nil {
			return nil //nolint:nilerr // the repository around it has it: that is the user's choice
		}
	}
	if out, err := git(d, "init", "--quiet"); err != nil {
		return fmt.Errorf("git init: %s", strings.TrimSpace(out))
	}
	return nil
}

func git(d Dir, args ...string) (string, error) {
	out, err := exec.Command("git", append([]string{"-C", d.Root()}, args...)...).CombinedOutput() //nolint:noctx // it takes milliseconds
	return string(out), err
}
