package fleet

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"

	"github.com/k3lab/k3lab/internal/fault"
)

// The directory always holds a text, so that this package builds before the
// convergers do.
//
//go:embed embedded
var embedded embed.FS

// Binary is the converger for one architecture.
type Binary struct {
	Content []byte
	SHA256  string // hex
}

// Converger returns the built-in converger for an architecture as Go names it.
func Converger(arch string) (Binary, error) { return builtIn(embedded, arch) }

func builtIn(from fs.FS, arch string) (Binary, error) {
	content, err := fs.ReadFile(from, "embedded/k3lab-converger-linux-"+arch)
	if err != nil {
		return Binary{}, fault.New(fault.Failed, "", "make build", "converger for linux/%s is not built in", arch)
	}
	sum := sha256.Sum256(content)
	return Binary{Content: content, SHA256: hex.EncodeToString(sum[:])}, nil
}
