package release_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/release"
)

func TestDigestsAreWrittenInOneOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), release.LockFile)
	d := release.Digests{
		release.Key("v1.36.3+k3s1", "k3s-arm64"): sum("b"), release.Key("v1.36.3+k3s1", "k3s"): sum("a"),
		release.Key("v1.35.9+k3s1", "k3s"): sum("c"), "charts/x": sum("d"),
	}
	want := "# Digests of what k3lab downloads for this lab: a file with another one is refused.\n" +
		"# Written by k3lab lock, and by the first k3lab up of a version. Keep it in git.\n" +
		"charts/x: sha256:" + sum("d") + "\n" +
		"k3s/v1.35.9+k3s1/k3s: sha256:" + sum("c") + "\n" +
		"k3s/v1.36.3+k3s1/k3s: sha256:" + sum("a") + "\n" +
		"k3s/v1.36.3+k3s1/k3s-arm64: sha256:" + sum("b") + "\n"
	if err := d.Write(path); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != want {
		t.Errorf("%v (-want +got):\n%s", err, cmp.Diff(want, string(text)))
	}
	got, err := release.ReadDigests(path)
	if diff := cmp.Diff(d, got); diff != "" || err != nil {
		t.Errorf("read again: %v (-want +got):\n%s", err, diff)
	}
	kept := got.KeepVersions("v1.36.3+k3s1").With(release.Digests{"more": sum("e")})
	delete(d, release.Key("v1.35.9+k3s1", "k3s"))
	d["more"] = sum("e")
	if diff := cmp.Diff(d, kept); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadDigests(t *testing.T) {
	tests := map[string]struct {
		text string
		want string
	}{
		"nothing":          {"", ""},
		"comments alone":   {"# x\n", ""},
		"a short digest":   {"k3s/v1/k3s: sha256:abc\n", `k3lab.lock: k3s/v1/k3s: "sha256:abc" is not sha256: and 64 hex digits (try: delete that line, then k3lab lock)`},
		"another digest":   {"k3s/v1/k3s: md5:abc\n", `k3lab.lock: k3s/v1/k3s: "md5:abc" is not sha256: and 64 hex digits (try: delete that line, then k3lab lock)`},
		"a merge conflict": {"<<<<<<< HEAD\na: b\n=======\n", "k3lab.lock: it cannot be read: [1:1] unexpected key name (try: git checkout k3lab.lock)"},
		"one key twice":    {"a: sha256:" + sum("a") + "\na: sha256:" + sum("b") + "\n", `k3lab.lock: it cannot be read: [2:1] mapping key "a" already defined at [1:1] (try: git checkout k3lab.lock)`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), release.LockFile)
			write(t, path, tt.text)
			got, err := release.ReadDigests(path)
			switch {
			case tt.want == "":
				if d := cmp.Diff(release.Digests{}, got); d != "" || err != nil {
					t.Errorf("%v (-want +got):\n%s", err, d)
				}
			case err == nil || err.Error() != tt.want || fault.KindOf(err) != fault.Invalid:
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
	if got, err := release.ReadDigests(filepath.Join(t.TempDir(), "none")); err != nil || len(got) != 0 {
		t.Errorf("a file that is not there: %v, %v", got, err)
	}
}
