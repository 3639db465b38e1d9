package config

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// ImagesAirgap stands in k3s.images for the bundle of the release that holds every
// image K3s itself needs.
const ImagesAirgap = "airgap"

// imageArchive is the name of a file that K3s imports; see its documentation of
// agent/images.
var imageArchive = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*\.(tar|tar\.gz|tgz|tar\.zst|tzst|tar\.bz2|tbz|tar\.lz4)$`)

// images reads k3s.images: files, relative to the workspace, and airgap.
func (c *checker) images(o object) []string {
	var out []string
	for _, e := range o.texts("images") {
		file := e.node.text
		switch {
		case slices.Contains(out, file):
			c.errorAt(e.key, "remove one", "%q is listed twice", file)
			continue
		case file != ImagesAirgap && !imageArchive.MatchString(path.Base(file)):
			hint := "archives are called NAME.tar, .tar.zst, .tar.gz, .tar.bz2 or .tar.lz4, with letters, digits and . _ + -"
			if near := nearest(file, []string{ImagesAirgap}); near != "" && !strings.Contains(file, ".") {
				hint = "write " + near
			}
			c.errorAt(e.key, hint, "%q is no archive of images", file)
			continue
		}
		out = append(out, file)
	}
	return out
}
