package kube_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/k3lab/k3lab/internal/kube"
)

// TestBuildSaysWhatIsMissing in one phrase; kustomize itself says it four times.
func TestBuildSaysWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte("resources: [missing.yaml]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := kube.Build(dir)
	want := dir + ": kustomize: " + filepath.Join(dir, "missing.yaml") + " is not there (try: kubectl kustomize " + dir + ")"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}
