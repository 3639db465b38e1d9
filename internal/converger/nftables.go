package converger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// mostRules is the longest ruleset, in bytes: the kernel takes no longer argument
// of a program than 128 KiB.
const mostRules = 100 << 10

// tableState is a table as nft lists it, without counts: as it is loaded, and as
// it would be with the rules wanted. Empty where there is none.
type tableState struct {
	is, want       string
	isErr, wantErr error
}

// table lists what is loaded.
func (q queries) table(ctx context.Context, name string) (string, error) {
	out, err := q.programs.run(ctx, nil, "nft", "--stateless", "list", "table", "inet", name)
	var failed *programError
	if errors.As(err, &failed) && strings.Contains(failed.stderr, "No such file or directory") {
		return "", nil
	}
	return string(out), err
}

// tableOf lists what would be loaded: the rules are loaded into a network
// namespace that lives for this only, so that nft itself judges and spells them,
// and a rule that was added or deleted by hand is seen.
func (q queries) tableOf(ctx context.Context, n *Nftables) (string, error) {
	if n.Ruleset == "" {
		return "", nil
	}
	const script = `printf %s "$1" | nft --file - && nft --stateless list table inet "$2"`
	out, err := q.programs.run(ctx, nil, "unshare", "--net", "sh", "-c", script, "sh", n.Ruleset, n.Table)
	if err != nil {
		return "", fmt.Errorf("its rules cannot be loaded: %w", err)
	}
	return string(out), nil
}

func (v *view) planNftables(n *Nftables) ([]action, error) {
	t := v.tables[n.Table]
	inFile := v.exists(n.Path)
	change := Change{Action: "update", Before: t.is, After: t.want}
	switch {
	case n.Ruleset == "" && !inFile && (t.isErr == nil && t.is == "" || errors.Is(t.isErr, exec.ErrNotFound)):
		return nil, nil
	case n.Ruleset != "" && v.packagesPlanned() && (t.isErr != nil || t.wantErr != nil):
		change.Action, change.Detail = "create", n.Path // nft comes with a package
	case t.isErr != nil || t.wantErr != nil:
		return nil, errors.Join(t.isErr, t.wantErr)
	case n.Ruleset == "":
		change.Action = "delete"
		return one(change, func(ctx context.Context, w *writer) error { return w.dropTable(ctx, n) }), nil
	case t.is == "":
		change.Action, change.Detail = "create", n.Path
	case t.is != t.want:
		change.Detail = "the rules that are loaded"
	}
	load := func(ctx context.Context, w *writer) error { return w.loadTable(ctx, n) }
	same := false
	if inFile {
		content, err := os.ReadFile(v.at(n.Path))
		if err != nil {
			return nil, err
		}
		same = string(content) == n.Ruleset
	}
	if same && t.is == t.want && change.Action == "update" {
		return nil, nil
	}
	if change.Detail == "" {
		change.Detail = n.Path
	}
	return one(change, load), nil
}

// loadTable has the file on disk first: what is loaded is there after a boot too.
func (w *writer) loadTable(ctx context.Context, n *Nftables) error {
	if err := w.replace(n.Path, strings.NewReader(n.Ruleset), attributes{mode: 0o644}); err != nil {
		return err
	}
	return w.run(ctx, "nft", "--file", n.Path)
}

func (w *writer) dropTable(ctx context.Context, n *Nftables) error {
	if err := os.Remove(w.view.at(n.Path)); err != nil && !notThere(err) {
		return err
	}
	if err := w.syncDir(n.Path); err != nil && !notThere(err) {
		return err
	}
	return w.run(ctx, "nft", noTable(n.Table))
}

// noTable are commands after which there is no such table; it may be there or not.
func noTable(name string) string {
	return fmt.Sprintf("table inet %[1]s { }\ndelete table inet %[1]s\n", name)
}

// tableUndo loads the table as it was, hand-made rules included. Where nft does
// not take its own listing, the file is loaded, which is back by then.
func tableUndo(n *Nftables, was string) undo {
	const script = `printf %s "$1" | nft --file - || nft --file "$2"`
	return undo{Args: []string{"sh", "-c", script, "sh", noTable(n.Table) + was, n.Path}}
}
