package machine

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/k3lab/k3lab/internal/fault"
)

// run runs a program to its end and returns its standard output. The error
// tells the last line the program said.
func run(ctx context.Context, stdin string, argv ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	if err == nil {
		return out.Bytes(), nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, fault.New(fault.Failed, argv[0], "", "%w%s", err, said(errs.String()))
}

// said returns the last line of what a program printed, as the end of a message.
func said(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return fmt.Sprintf(": %s", last)
	}
	return ""
}

// Requirement is a program the sandbox needs, and the Debian package that
// brings it.
type Requirement struct{ Program, Package string }

// Requirements are the programs needed to run machines; with image also those
// needed to make the root image.
func Requirements(image, internet bool) []Requirement {
	needed := []Requirement{
		{"systemd-nspawn", "systemd-container"},
		{"ip", "iproute2"},
		{"unshare", "util-linux"},
		{"nsenter", "util-linux"},
		{"fsfreeze", "util-linux"},
		{"mount", "mount"},
		{"losetup", "mount"},
		{"mkfs.ext4", "e2fsprogs"},
		{"e2fsck", "e2fsprogs"},
		{"resize2fs", "e2fsprogs"},
	}
	if image {
		needed = append(needed, Requirement{"mmdebstrap", "mmdebstrap"})
	}
	if internet {
		needed = append(needed, Requirement{"nft", "nftables"})
	}
	return needed
}
