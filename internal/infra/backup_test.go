package infra

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestPrune(t *testing.T) {
	dir := t.TempDir()
	for i := range keptBackups + 3 {
		name := filepath.Join(dir, fmt.Sprintf("20261123T0200%02d.000000Z.tfstate.age", i))
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := prune(dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != keptBackups+1 || entries[0].Name() != "20261123T020003.000000Z.tfstate.age" || entries[keptBackups].Name() != "notes.txt" {
		t.Errorf("left: %v", entries)
	}
}
