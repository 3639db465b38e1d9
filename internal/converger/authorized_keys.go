package converger

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// publicKey finds the key in a line of authorized_keys: before it there may be
// options, after it a comment.
var publicKey = regexp.MustCompile(`(?:^|\s)((?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+) (AAAA[A-Za-z0-9+/]+=*)(?:\s+(.*))?$`)

// planAuthorizedKeys keeps our keys in a block of the user's authorized_keys.
// Keys of ours that stand elsewhere, as those of the first boot do, are taken
// into it. Keys somebody else put there stay, and are told.
func (v *view) planAuthorizedKeys(k *AuthorizedKeys) ([]action, error) {
	owner, err := v.account(k.User)
	if err != nil {
		return nil, err
	}
	dir := path.Join(owner.home, ".ssh")
	file := path.Join(dir, "authorized_keys")
	dirWrong, err := v.wrongKeyDir(dir, owner)
	if err != nil {
		return nil, err
	}
	text, is, err := v.foreignFile(file)
	if err != nil && !notThere(err) {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	missing := err != nil
	wanted, retired := keySet(k.Keys), keySet(k.Retired)
	merge := func(text string) string {
		return withBlock(text, k.Keys, func(line string) bool {
			return bare(line) && wanted[keyOf(line)] || retired[keyOf(line)]
		})
	}
	after := merge(text)
	var actions []action
	if others := othersKeys(after); others != nil {
		actions = told("left alone, put there by somebody else: " + strings.Join(others, "; "))
	}
	want := attributes{mode: 0o600, uid: owner.uid, gid: owner.gid}
	if after == text && !missing && is == want && !dirWrong {
		return actions, nil
	}
	change := Change{Action: "update", Detail: keyDifferences(text, after)}
	if missing {
		change.Action = "create"
	}
	if after != text {
		change.Before, change.After = text, after
	}
	return append(actions, action{Change: change, make: func(_ context.Context, w *writer) error {
		if dirWrong {
			if err := w.keyDir(dir, owner); err != nil {
				return err
			}
		}
		now, _, err := w.view.foreignFile(file)
		if err != nil && !notThere(err) {
			return err
		}
		return w.replace(file, strings.NewReader(merge(now)), want)
	}}), nil
}

type account struct {
	home     string
	uid, gid int
}

// account is what /etc/passwd says of a user.
func (v *view) account(user string) (account, error) {
	for _, line := range v.lines("/etc/passwd") {
		f := strings.Split(line, ":")
		if len(f) < 6 || f[0] != user {
			continue
		}
		uid, errUID := v.users.id(f[2])
		gid, errGID := v.users.id(f[3])
		if err := errors.Join(errUID, errGID); err != nil {
			return account{}, err
		}
		if !path.IsAbs(f[5]) || path.Clean(f[5]) == "/" {
			return account{}, fmt.Errorf("user %s has no home directory", user)
		}
		return account{home: path.Clean(f[5]), uid: uid, gid: gid}, nil
	}
	return account{}, fmt.Errorf("there is no user %q on this machine", user)
}

// wrongKeyDir reports whether the directory of the keys must be made or set
// right: sshd does not read keys that somebody else could write.
func (v *view) wrongKeyDir(dir string, owner account) (bool, error) {
	info, err := os.Lstat(v.at(dir))
	if notThere(err) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok {
		return false, fmt.Errorf("%s is no directory", dir)
	}
	return int(stat.Uid) != owner.uid || stat.Mode&0o022 != 0, nil
}

func (w *writer) keyDir(dir string, owner account) error {
	at := w.view.at(dir)
	if err := os.MkdirAll(at, 0o700); err != nil {
		return w.explain(dir, err)
	}
	if err := os.Lchown(at, owner.uid, owner.gid); err != nil {
		return err
	}
	return os.Chmod(at, 0o700)
}

// keyOf is what tells one key from another, "" in a line that has none.
func keyOf(line string) string {
	if m := publicKey.FindStringSubmatch(line); m != nil && !strings.HasPrefix(strings.TrimSpace(line), "#") {
		return m[1] + " " + m[2]
	}
	return ""
}

func keySet(lines []string) map[string]bool {
	set := map[string]bool{}
	for _, line := range lines {
		set[keyOf(line)] = true
	}
	return set
}

// bare reports whether the line is a key without options, which somebody else's
// would be changed by taking it over.
func bare(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), keyOf(line)) }

// othersKeys names the keys outside our block.
func othersKeys(text string) []string {
	rest, _ := withoutBlock(text)
	var out []string
	for _, line := range rest {
		if keyOf(line) != "" {
			out = append(out, nameOfKey(line))
		}
	}
	return out
}

// nameOfKey is a key as ssh-keygen -l names it: fingerprint and comment.
func nameOfKey(line string) string {
	m := publicKey.FindStringSubmatch(line)
	blob, err := base64.StdEncoding.DecodeString(m[2])
	if err != nil {
		return strings.TrimSpace(m[1] + " " + m[3])
	}
	sum := sha256.Sum256(blob)
	return strings.TrimSpace("SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:]) + " " + m[3])
}

// keyDifferences says in words which keys come and go.
func keyDifferences(before, after string) string {
	list := func(text string) map[string]string {
		out := map[string]string{}
		for line := range strings.SplitSeq(text, "\n") {
			if key := keyOf(line); key != "" {
				out[key] = nameOfKey(line)
			}
		}
		return out
	}
	was, is := list(before), list(after)
	var out []string
	for key, name := range is {
		if was[key] == "" {
			out = append(out, "add "+name)
		}
	}
	for key, name := range was {
		if is[key] == "" {
			out = append(out, "remove "+name)
		}
	}
	slices.Sort(out)
	if out == nil {
		return "the same keys, as k3lab's own lines"
	}
	return strings.Join(out, ", ")
}
