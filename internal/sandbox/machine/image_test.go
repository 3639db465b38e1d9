//go:build linux

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMakeImageInterrupted: an interrupted image leaves neither a half-made one
// nor a process nor a mount.
func TestMakeImageInterrupted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making the root image needs root")
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Skip("mmdebstrap is not there")
	}
	dir := t.TempDir()
	i := Image{CacheDir: dir, Log: t.Logf}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for t.Context().Err() == nil { // until it is well under way
			if found, _ := filepath.Glob(dir + "/debian-*.new/var/lib/dpkg"); len(found) > 0 {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	if _, err := i.Make(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Make: %v", err)
	}
	if i.Made() {
		t.Error("half an image is taken for a whole one")
	}
	if found, _ := filepath.Glob(dir + "/debian-*"); len(found) > 0 {
		t.Errorf("left: %v", found)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range processes {
		b, _ := os.ReadFile(p)
		if strings.Contains(string(b), dir) {
			t.Errorf("process left: %s", strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	if strings.Contains(string(mounts), dir) {
		t.Error("mounts left")
	}
}

// TestMakeImageUnreachable names the archive that cannot be reached.
func TestMakeImageUnreachable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making the root image needs root")
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Skip("mmdebstrap is not there")
	}
	i := Image{CacheDir: t.TempDir(), Mirror: "http://127.0.0.1:1/debian", Log: t.Logf}
	_, err := i.Make(t.Context())
	text := fmt.Sprint(err)
	for _, part := range []string{"root image: ", "mmdebstrap: exit status", "(try: see that http://127.0.0.1:1/debian can be reached, or set K3LAB_DEBIAN_MIRROR)"} {
		if !strings.Contains(text, part) {
			t.Errorf("Make: %s\nlacks %q", text, part)
		}
	}
}
