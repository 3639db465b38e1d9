package converger

import (
	"iter"
	"slices"
)

// unwanted are those kept that nobody wants, sorted; none where nothing of the
// kind is wanted, because such a state is about something else.
func unwanted(wanted map[string]bool, kept iter.Seq[string]) []string {
	if len(wanted) == 0 {
		return nil
	}
	var out []string
	for _, name := range slices.Sorted(kept) {
		if !wanted[name] {
			out = append(out, name)
		}
	}
	return out
}
