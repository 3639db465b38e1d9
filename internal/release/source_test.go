package release_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/release"
)

func source(t *testing.T, s *server) *release.Source {
	t.Helper()
	return &release.Source{Version: version, CacheDir: t.TempDir(), BaseURL: s.URL, Get: s.downloader()}
}

// TestFindOncePerArchitecture: each architecture has its own list, binary, images
// and digests; what is in the cache is not asked for again.
func TestFindOncePerArchitecture(t *testing.T) {
	files := two()
	s := serve(t, files)
	src := source(t, s)
	for range 2 {
		for arch, names := range map[string][]string{"amd64": {"k3s", "k3s-airgap-images-amd64.tar.zst"}, "arm64": {"k3s-arm64", "k3s-airgap-images-arm64.tar.zst"}} {
			digest, err := src.Digest(context.Background(), arch, release.BinaryName(arch))
			if err != nil || digest != sum(files[names[0]]) {
				t.Errorf("%s: digest %s, %v", arch, digest, err)
			}
			got, err := src.FindBinary(context.Background(), arch)
			if err != nil {
				t.Fatal(err)
			}
			images, err := src.Find(context.Background(), arch, release.ImagesName(arch))
			if err != nil {
				t.Fatal(err)
			}
			for i, f := range []release.File{got, images} {
				want := release.File{Path: filepath.Join(src.CacheDir, "k3s", version, names[i]), SHA256: sum(files[names[i]])}
				if d := cmp.Diff(want, f); d != "" {
					t.Errorf("%s (-want +got):\n%s", arch, d)
				}
				if text, err := os.ReadFile(f.Path); err != nil || string(text) != files[names[i]] {
					t.Errorf("%s: %s is not the release's: %v", arch, f.Path, err)
				}
			}
		}
	}
	if n := len(s.asked()); n != 6 {
		t.Errorf("%d requests, want a list and two files for each architecture: %v", n, s.asked())
	}
}

// TestFindWithLock: what is locked is asked of nobody, and nothing else is taken.
func TestFindWithLock(t *testing.T) {
	files := two()
	s := serve(t, files)
	src := source(t, s)
	src.Locked = release.Digests{release.Key(version, "k3s"): sum(files["k3s"]), release.Key(version, "k3s-arm64"): sum("another")}
	if got, err := src.Digest(context.Background(), "arm64", release.BinaryName("arm64")); err != nil || got != sum("another") {
		t.Errorf("got %s, %v, want the locked digest", got, err)
	}
	if asked := s.asked(); asked != nil {
		t.Errorf("asked for %v", asked)
	}
	if _, err := src.FindBinary(context.Background(), "amd64"); err != nil {
		t.Error(err)
	}
	_, err := src.FindBinary(context.Background(), "arm64")
	want := s.URL + "/v1.36.3+k3s1/k3s-arm64: k3lab.lock: the SHA-256 of what arrived is " + sum(files["k3s-arm64"]) + ", but " + sum("another") +
		" is expected (try: again; if it stays, somebody has changed the release or your connection: find out who before you delete the line from k3lab.lock)"
	if err == nil || err.Error() != want || fault.KindOf(err) != fault.Invalid {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if d := cmp.Diff([]string{"k3s", "k3s-arm64"}, s.asked()); d != "" {
		t.Errorf("requests (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string]string{"k3s": files["k3s"]}, in(t, filepath.Join(src.CacheDir, "k3s", version))); d != "" {
		t.Errorf("the cache (-want +got):\n%s", d)
	}
}

func TestFindMendsTheCache(t *testing.T) {
	files := two()
	s := serve(t, files)
	src := source(t, s)
	path := filepath.Join(src.CacheDir, "k3s", version, "k3s")
	write(t, path, "spoilt")
	if _, err := src.FindBinary(context.Background(), "amd64"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != files["k3s"] {
		t.Errorf("the cache still holds %q, %v", text, err)
	}
}

func TestFindRefuses(t *testing.T) {
	tests := map[string]struct {
		change func(files map[string]string)
		want   string
	}{
		"a list without the file": {
			func(f map[string]string) { f["sha256sum-amd64.txt"] = "x  k3s\n" },
			"sha256sum-amd64.txt: the release publishes no digest of k3s",
		},
		"another content than published": {
			func(f map[string]string) { f["k3s"] = "tampered" },
			"k3s: the SHA-256 of what arrived is " + sum("tampered") + ", but " + sum(two()["k3s"]) +
				" is expected (try: again; if it stays, do not trust this download: compare with the digest on the release's page)",
		},
		"a binary of another architecture": {
			func(f map[string]string) {
				f["k3s"] = f["k3s-arm64"]
				f["sha256sum-amd64.txt"] = sum(f["k3s"]) + "  k3s\n"
			},
			"CACHE/k3s/v1.36.3+k3s1/k3s: k3s binary: it is for arm64, but there are amd64 machines (try: K3LAB_K3S_BINARY_DIR=a folder with " +
				"k3s-VERSION-amd64 and k3s-VERSION-arm64, or correct arch in terraform/vars/nodes.yaml)",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			files := two()
			tt.change(files)
			s := serve(t, files)
			src := source(t, s)
			_, err := src.FindBinary(context.Background(), "amd64")
			if err == nil {
				t.Fatal("no error")
			}
			got := strings.NewReplacer(s.URL+"/v1.36.3+k3s1/", "", src.CacheDir, "CACHE").Replace(err.Error())
			if got != tt.want || fault.KindOf(err) != fault.Invalid {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestGivenBinaries(t *testing.T) {
	amd64, arm64, riscv := program("amd64", ""), program("arm64", ""), program("riscv64", "")
	const other = "(try: K3LAB_K3S_BINARY_DIR=a folder with k3s-VERSION-amd64 and k3s-VERSION-arm64, or correct arch in terraform/vars/nodes.yaml)"
	tests := map[string]struct {
		files  map[string]string
		binary string // else the folder
		arch   string
		locked string
		file   string // that is found
		want   string // else the error
	}{
		"one for its architecture":     {map[string]string{"my-k3s": amd64}, "my-k3s", "amd64", "", "my-k3s", ""},
		"one for another architecture": {map[string]string{"my-k3s": amd64}, "my-k3s", "arm64", "", "", "DIR/my-k3s: k3s binary: it is for amd64, but there are arm64 machines " + other},
		"one for none of ours":         {map[string]string{"my-k3s": riscv}, "my-k3s", "arm64", "", "", "DIR/my-k3s: k3s binary: it is for EM_RISCV, but there are arm64 machines " + other},
		"no program": {
			map[string]string{"my-k3s": "#!/bin/sh\n"}, "my-k3s", "amd64", "", "",
			"DIR/my-k3s: k3s binary: it is no program for Linux (try: use the K3s release's binary)",
		},
		"one that is not there": {nil, "my-k3s", "amd64", "", "", "DIR/my-k3s: k3s binary: no such file or directory"},
		"as locked":             {map[string]string{"my-k3s": amd64}, "my-k3s", "amd64", sum(amd64), "my-k3s", ""},
		"another than locked": {
			map[string]string{"my-k3s": amd64}, "my-k3s", "amd64", sum("x"), "",
			"DIR/my-k3s: k3s binary: its SHA-256 is " + sum(amd64) + ", but k3lab.lock says " + sum("x") +
				" for k3s v1.36.3+k3s1 (try: use the release's own file)",
		},
		"a folder, amd64":            {map[string]string{"k3s-" + version: amd64, "k3s-" + version + "-arm64": arm64}, "", "amd64", "", "k3s-" + version, ""},
		"a folder, arm64":            {map[string]string{"k3s-" + version: amd64, "k3s-" + version + "-arm64": arm64}, "", "arm64", "", "k3s-" + version + "-arm64", ""},
		"a folder, both with suffix": {map[string]string{"k3s-" + version: "x", "k3s-" + version + "-amd64": amd64}, "", "amd64", "", "k3s-" + version + "-amd64", ""},
		"a folder without the version": {
			map[string]string{"k3s-v1.35.0+k3s1": amd64}, "", "amd64", "", "",
			"DIR/k3s-v1.36.3+k3s1: k3s binary: no such file or directory (try: put the release's k3s there under that name, or unset K3LAB_K3S_BINARY_DIR)",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range tt.files {
				write(t, filepath.Join(dir, file), text)
			}
			src := release.Source{Version: version, BinaryDir: dir, Locked: release.Digests{}}
			if tt.binary != "" {
				src.Binary, src.BinaryDir = filepath.Join(dir, tt.binary), ""
			}
			if tt.locked != "" {
				src.Locked[release.Key(version, release.BinaryName(tt.arch))] = tt.locked
			}
			got, err := src.FindBinary(context.Background(), tt.arch)
			if tt.want != "" {
				if err == nil || strings.ReplaceAll(err.Error(), dir, "DIR") != tt.want || fault.KindOf(err) != fault.Invalid {
					t.Errorf("got  %v\nwant %s", err, tt.want)
				}
				return
			}
			if d := cmp.Diff(release.File{Path: filepath.Join(dir, tt.file), SHA256: sum(tt.files[tt.file])}, got); d != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, d)
			}
		})
	}
}
