package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Load reads the settings files of the workspace in dir into a Lab, defaults
// merged in, and checks it whole. Problems is never nil; the Lab is complete and
// consistent only when its Err is nil, though never nil either.
//
// A file that is not YAML is reported at its first error and then counts as
// empty, without its missing settings being reported too.
func Load(dir string) (*Lab, *Problems) {
	return load(func(file string) ([]byte, error) {
		return os.ReadFile(filepath.Join(dir, filepath.FromSlash(file)))
	})
}

func load(read func(file string) ([]byte, error)) (*Lab, *Problems) {
	c := &checker{sources: newSources()}
	roots := map[string]*node{}
	for _, file := range Files {
		root := c.open(file, read)
		if root == nil {
			continue
		}
		c.walk(root, shapeOf(file), "", c.foreignProblem)
		roots[file] = root
	}
	lab := &Lab{Sources: c.sources}
	c.readNodes(lab, roots[nodesFile])
	c.readNetwork(lab, roots[networkFile])
	c.readProxmox(lab, roots[proxmoxFile])
	c.readPlatform(lab, roots[platformFile])
	c.judge(lab, roots)
	return lab, &Problems{list: sorted(c.problems)}
}

// open reads and parses a file. It returns nil when there is nothing to go on.
func (c *checker) open(file string, read func(string) ([]byte, error)) *node {
	src, err := read(file)
	if err == nil {
		return c.parse(file, src)
	}
	at := span{Position: Position{File: file}}
	c.sources.spans[stem(file)] = at
	if errors.Is(err, fs.ErrNotExist) {
		c.errorf(at, "a workspace made by k3lab init has it", "the file is missing")
		return nil
	}
	var cause *fs.PathError
	if errors.As(err, &cause) {
		err = cause.Err // the path is said already
	}
	c.errorf(at, "", "cannot be read: %v", err)
	return nil
}
