package converger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
)

// The lines around what is ours in a file that others write too.
const (
	blockBegin = "# BEGIN k3lab: written from the lab's settings; changes made here are put back."
	blockEnd   = "# END k3lab"
)

// planBlock keeps our lines in a file of somebody else's. All other lines stay,
// in their order.
func (v *view) planBlock(b *Block) ([]action, error) {
	text, a, err := v.foreignFile(b.Path)
	if notThere(err) {
		if b.IfThere || len(b.Lines) == 0 {
			return nil, nil
		}
		a, err = attributes{mode: b.Mode}, nil
	}
	if err != nil {
		return nil, err
	}
	after := withBlock(text, b.Lines, nil)
	if after == text {
		return nil, nil
	}
	change := Change{Action: "update", Detail: "our lines", Before: text, After: after}
	if text == "" {
		change.Action = "create"
	}
	return one(change, func(_ context.Context, w *writer) error {
		return w.edit(b.Path, a, func(text string) string { return withBlock(text, b.Lines, nil) })
	}), nil
}

// foreignFile reads a text file that others write too, and who may do what with it.
func (v *view) foreignFile(path string) (string, attributes, error) {
	info, err := os.Lstat(v.at(path))
	if err != nil {
		return "", attributes{}, err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return "", attributes{}, errors.New("is a symbolic link, and what it leads to is not ours to change")
	}
	if !info.Mode().IsRegular() {
		return "", attributes{}, fmt.Errorf("is a %s and no regular file", info.Mode().Type())
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", attributes{}, errors.New("its owner cannot be read")
	}
	text, err := os.ReadFile(v.at(path))
	return string(text), attributes{mode: stat.Mode & 0o7777, uid: int(stat.Uid), gid: int(stat.Gid)}, err
}

// edit changes a file that others write too. It is read again: an earlier change,
// or somebody else, may have written it since it was planned.
func (w *writer) edit(path string, made attributes, change func(text string) string) error {
	text, a, err := w.view.foreignFile(path)
	if notThere(err) {
		a, err = made, nil
	}
	if err != nil {
		return err
	}
	return w.replace(path, strings.NewReader(change(text)), a)
}

// withBlock returns the text with our block saying these lines: where it stood,
// else at the end. No lines, no block. Other lines for which ours says that they
// are one of the lines are taken into the block.
func withBlock(text string, lines []string, ours func(other string) bool) string {
	rest, at := withoutBlock(text)
	if ours != nil {
		before := slices.DeleteFunc(slices.Clone(rest[:at]), ours)
		rest = slices.Concat(before, slices.DeleteFunc(slices.Clone(rest[at:]), ours))
		at = len(before)
	}
	if len(lines) > 0 {
		rest = slices.Insert(rest, at, slices.Concat([]string{blockBegin}, lines, []string{blockEnd})...)
	}
	if len(rest) == 0 {
		return ""
	}
	return strings.Join(rest, "\n") + "\n"
}

// withoutBlock returns the lines around our block and where among them it stood.
// Where one of the marks was lost only the other is taken away: which of the
// lines were ours is not known then.
func withoutBlock(text string) (rest []string, at int) {
	if text == "" {
		return nil, 0
	}
	rest = strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	begin, end := slices.Index(rest, blockBegin), slices.Index(rest, blockEnd)
	if begin >= 0 && begin < end {
		rest, at = slices.Delete(rest, begin, end+1), begin
	} else {
		at = -1
	}
	rest = slices.DeleteFunc(rest, func(line string) bool { return line == blockBegin || line == blockEnd })
	if at < 0 || at > len(rest) {
		at = len(rest)
	}
	return rest, at
}
