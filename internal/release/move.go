package release

import (
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/k3lab/k3lab/internal/fault"
)

// CheckMove refuses a way from one version to another that a cluster cannot take:
// back, or over a minor version. Kubernetes supports one minor version at a time.
func CheckMove(from, to string) error {
	a, err := version.ParseSemantic(from)
	if err != nil {
		return fmt.Errorf("k3s.version %s: %w", from, err)
	}
	b, err := version.ParseSemantic(to)
	if err != nil {
		return fmt.Errorf("version %s: %w", to, err)
	}
	const anyway = "; --force, where no cluster runs yet"
	switch {
	case b.LessThan(a) || b.EqualTo(a) && build(b) < build(a):
		return fault.New(fault.Invalid, "k3s.version", "stay, or restore a datastore snapshot of the older version"+anyway,
			"%s is older than %s, and a cluster cannot go back", to, from)
	case b.Major() != a.Major() || b.Minor() > a.Minor()+1:
		return fault.New(fault.Invalid, "k3s.version", fmt.Sprintf("k3lab lock --k3s-channel v%d.%d, then up", a.Major(), a.Minor()+1)+anyway,
			"from %s to %s minor versions would be skipped, and a cluster moves one at a time", from, to)
	}
	return nil
}

// build is N of +k3sN, which semantic versions do not order.
func build(v *version.Version) int {
	n, err := strconv.Atoi(strings.TrimPrefix(v.BuildMetadata(), "k3s"))
	if err != nil {
		return 0
	}
	return n
}
