package desired

import (
	"path"
	"slices"

	"github.com/k3lab/k3lab/internal/converger"
)

const (
	// ImagesDir is where K3s looks for archives of container images, when it starts
	// and while it runs.
	ImagesDir = "/var/lib/rancher/k3s/agent/images"
	// stagingDir is on the same file system, also where that is a disk of its own.
	stagingDir = "/var/lib/rancher/k3lab"
	// ourImages begins the names of our archives there; others are left alone.
	ourImages = "k3lab-"
)

// Archive is an archive of images, for the machine's architecture.
type Archive struct {
	Name   string // of the file it comes from
	SHA256 string // hex
	Size   int64  // bytes; 0: not known
}

// StagedArchive is where the fleet puts an archive with this digest.
func StagedArchive(sha256 string) string { return stagingDir + "/" + sha256 }

// images are the archives that every node has before K3s starts. K3s that runs
// imports what is put there, so that it need not be restarted.
func images(in Inputs) []converger.Resource {
	ours := converger.Leftovers{Dir: ImagesDir, Pattern: ourImages + "*"}
	staged := converger.Leftovers{Dir: stagingDir, Pattern: "[0-9a-f]*"}
	var out []converger.Resource
	for _, a := range in.Images {
		if slices.Contains(staged.Keep, a.SHA256) {
			continue // the same under two names
		}
		name := ourImages + a.SHA256[:12] + "-" + path.Base(a.Name)
		ours.Keep, staged.Keep = append(ours.Keep, name), append(staged.Keep, a.SHA256)
		out = append(out, converger.Resource{Archive: &converger.Archive{
			Path: ImagesDir + "/" + name, SHA256: a.SHA256, Source: StagedArchive(a.SHA256), Size: a.Size,
		}})
	}
	return append(out, converger.Resource{Leftovers: &ours}, converger.Resource{Leftovers: &staged})
}
