// Package confargs turns K3s's configuration files into the command-line
// arguments they stand for, which is how K3s itself reads them.
//
// Files are config.yaml and then config.yaml.d/*.yaml in alphabetical order. A
// key in a later file replaces the earlier value; written `key+` it appends to
// it. The arguments go directly after the command, so that flags on the command
// line come later and win (or append, for lists).
package confargs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// EnvFile names the configuration file, as -c does.
const EnvFile = "K3S_CONFIG_FILE"

// FileError says that a configuration file is not YAML.
type FileError struct {
	File string
	Err  error
}

func (e *FileError) Error() string { return e.File + ": " + e.Err.Error() }

func (e *FileError) Unwrap() error { return e.Err }

// Expand reads the configuration that args select (or the default file, which
// may be absent) and returns it as arguments.
func Expand(args []string, defaultFile string) ([]string, error) {
	file, chosen := chosenFile(args)
	if !chosen {
		file = defaultFile
	}
	values, err := readAll(file, chosen)
	if err != nil {
		return nil, err
	}
	return values.args(), nil
}

func chosenFile(args []string) (string, bool) {
	if file := os.Getenv(EnvFile); file != "" {
		return file, true
	}
	for i, arg := range args {
		for _, name := range []string{"--config", "-config", "-c", "--c"} {
			if arg == name && i+1 < len(args) {
				return args[i+1], true
			}
			if value, ok := strings.CutPrefix(arg, name+"="); ok {
				return value, true
			}
		}
	}
	return "", false
}

// ordered keeps keys in the order in which they were first seen, because that
// order shows in the node-args annotation.
type ordered struct {
	keys   []string
	values map[string][]string
}

func (o *ordered) set(key string, values []string, appending bool) {
	old, seen := o.values[key]
	if !seen {
		o.keys = append(o.keys, key)
	}
	if appending {
		values = append(slices.Clone(old), values...)
	}
	o.values[key] = values
}

func (o *ordered) args() []string {
	var args []string
	for _, key := range o.keys {
		dashes := "--"
		if len(key) == 1 {
			dashes = "-"
		}
		for _, value := range o.values[key] {
			args = append(args, dashes+key+"="+value)
		}
	}
	return args
}

func readAll(file string, mustExist bool) (*ordered, error) {
	values := &ordered{values: map[string][]string{}}
	err := readFile(file, values)
	if err != nil && (mustExist || !errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	dropIns, err := dropIns(file + ".d")
	if err != nil {
		return nil, err
	}
	for _, dropIn := range dropIns {
		if err := readFile(dropIn, values); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func dropIns(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		ext := filepath.Ext(entry.Name())
		if !entry.IsDir() && (ext == ".yaml" || ext == ".yml") {
			files = append(files, filepath.Join(dir, entry.Name()))
		}
	}
	sort.Strings(files)
	return files, nil
}

func readFile(file string, into *ordered) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return &FileError{file, err}
	}
	if len(doc.Content) == 0 {
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: the configuration must be a mapping of flags to values", file, root.Line)
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, appending := strings.CutSuffix(root.Content[i].Value, "+")
		values, err := scalars(root.Content[i+1])
		if err != nil {
			return fmt.Errorf("%s:%d: %s: %w", file, root.Content[i].Line, key, err)
		}
		into.set(key, values, appending)
	}
	return nil
}

func scalars(node *yaml.Node) ([]string, error) {
	switch node.Kind {
	case yaml.AliasNode:
		return scalars(node.Alias)
	case yaml.ScalarNode:
		value, err := scalar(node)
		return []string{value}, err
	case yaml.SequenceNode:
		values := make([]string, 0, len(node.Content))
		for _, item := range node.Content {
			if item.Kind != yaml.ScalarNode {
				return nil, errors.New("a list may hold plain values only")
			}
			value, err := scalar(item)
			if err != nil {
				return nil, err
			}
			values = append(values, value)
		}
		return values, nil
	default:
		return nil, errors.New("must be a plain value or a list of them")
	}
}

// scalar writes a value the way K3s passes it on: what YAML 1.1 knows as a bool
// or a number in its normal form (a bare `yes` is true, 0644 is 420).
func scalar(node *yaml.Node) (string, error) {
	if node.Style == 0 {
		switch strings.ToLower(node.Value) {
		case "y", "yes", "on":
			return "true", nil
		case "n", "no", "off":
			return "false", nil
		}
	}
	switch node.Tag {
	case "!!null":
		return "", nil
	case "!!bool":
		var b bool
		err := node.Decode(&b)
		return strconv.FormatBool(b), err
	case "!!int":
		var i int64
		err := node.Decode(&i)
		return strconv.FormatInt(i, 10), err
	default:
		return node.Value, nil
	}
}
